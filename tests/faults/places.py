"""Every place of the apply transaction at which the crash matrix strikes.

`tests/unit/apply/test_fault_places.py` compares it with the applier's source: a statement that
comes without its faults here fails.
"""

from __future__ import annotations

STATEMENTS = (
    "advance",
    "clear",
    "truncate",
    "copy",
    "straight",
    "delete",
    "update",
    "rewrite",
    "upsert",
    "finish_complete",
    "finish_partial",
    "delete_finals",
    "insert_finals",
    "delete_equal",
    "insert",
    "count",
    "commit",
)
PLACES = (
    *(f"apply.{statement}.{side}" for statement in STATEMENTS for side in ("before", "after")),
    "apply.copy.within",
    "apply.straight.within",
)
# All others lie between BEGIN and COMMIT.
OUTSIDE = ("apply.commit.after",)
