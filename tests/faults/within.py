"""A migration inside one database: the tables of `switching` move to a schema and a shape anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.faults.switching import SCHEMA, Switching
from tests.support.live import LiveMigration

OLD, NEW = SCHEMAS = ("app", "next")
EXPANDED = (
    SCHEMA.partition("INSERT INTO")[0].replace(f"{OLD}.", f"{NEW}.").replace(f" {OLD};", f" {NEW};")
    + f"ALTER TABLE {NEW}.entry RENAME note TO remark;"
    f"ALTER TABLE {NEW}.entry ADD origin text NOT NULL DEFAULT 'new', ADD size int;"
    f"ALTER TABLE {NEW}.total RENAME note TO about;"
    # What it gave cannot be read from a text: so both sides go on with one sequence.
    f"ALTER TABLE {NEW}.counted ALTER coded SET DEFAULT 'N' || nextval('{OLD}.coded');"
    f"DROP SEQUENCE {NEW}.coded;"
)
SETTINGS: dict[str, Any] = {
    "tables": {"include": [f"{OLD}.*"]},
    "mapping": [
        {
            "table": f"{OLD}.entry",
            "to": f"{NEW}.entry",
            "rename": {"note": "remark"},
            "set": {"origin": "'old'", "size": "length(note)"},
        },
        {"table": f"{OLD}.total", "to": f"{NEW}.total", "rename": {"note": "about"}},
        {"table": f"{OLD}.*", "to": f"{NEW}.*"},
    ],
    "backup": {"required": False},
    "cutover": {"hooks": [{"kind": "route"}], "without_way_back": "a test", "budget": "8s"},
}
# Where the old tables and the new ones do not hold the same; empty is right.
_APART = (
    "SELECT 'entry' FROM (SELECT id, writer, number, note, 'old', length(note) FROM app.entry "
    "EXCEPT SELECT id, writer, number, remark, origin, size FROM next.entry) a UNION ALL "
    "SELECT 'entry' FROM (SELECT id, writer, number, remark, origin, size FROM next.entry "
    "EXCEPT SELECT id, writer, number, note, 'old', length(note) FROM app.entry) b UNION ALL "
    "SELECT 'total' FROM (TABLE app.total EXCEPT TABLE next.total) c UNION ALL "
    "SELECT 'log' FROM (TABLE app.log EXCEPT ALL TABLE next.log) d UNION ALL "
    "SELECT 'log' FROM (TABLE next.log EXCEPT ALL TABLE app.log) e UNION ALL "
    "SELECT 'counted' FROM (TABLE app.counted EXCEPT TABLE next.counted) f UNION ALL "
    "SELECT 'counted' FROM (TABLE next.counted EXCEPT TABLE app.counted) g"
)
APART = f"SELECT count(*) FROM ({_APART}) differing"


def made(directory: Path, name: str, database: str, stack: Any) -> LiveMigration:
    """The migration, nothing of which is begun."""
    return LiveMigration(directory, name, database, database, stack, SETTINGS)


def prepared(live: LiveMigration) -> None:
    """Both schemas are there, the old one's rows are loaded and followed, and compared once."""
    Switching.prepare(live, SCHEMA + EXPANDED)


def applications(live: LiveMigration, pause: float = 0.004) -> Switching:
    """Writers that write to the old tables, and to the new ones once they are led there.

    Args:
        pause: of each, between two commits, in seconds.
    """
    return Switching(live, pause=pause, schemas=SCHEMAS)
