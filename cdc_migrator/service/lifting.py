"""Lift the fence of the side that was left without the other one, which is lost."""

from __future__ import annotations

from cdc_migrator.control import cutover as rows
from cdc_migrator.control import within
from cdc_migrator.cutover import fence
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Refused


def lift_alone(name: str, source_dsn: str, target_is_gone: bool, back: bool = False) -> bool:
    """Lift the source's fence without the target: from the source's own copy of the state.

    Args:
        target_is_gone: somebody says so, and that nothing will ever be written there; needed
            where the target may have been opened.
        back: of a rollback, whose source is the target.

    Returns False where the source is not fenced.

    Raises Refused: CDCM-CUTOVER-MAYBE-OPEN, CDCM-CUTOVER-SAME-DATABASE.
    """
    left, other, verb = (
        ("target", "source", "rollback") if back else ("source", "target", "cutover")
    )
    with connect(source_dsn, application_name=f"cdcm-{name}-abort", side=left) as source:
        with speaking(left, "reading its copy of the cutover"):
            if within.both_sides(source):
                raise Refused(
                    "CDCM-CUTOVER-SAME-DATABASE",
                    f"{left} and {other} are one database, so the {other} is not lost while the "
                    f"{left} answers",
                    f"`cdc-migrator {verb} abort` asks both.",
                )
            copy = rows.read_copy(source, name)
            if copy is None:
                return False
            state = rows.give_up(source, name, copy.attempt, target_is_gone)
        if state is rows.Copied.OPENING:
            raise Refused(
                "CDCM-CUTOVER-MAYBE-OPEN",
                f"the {other} may be open: lifting the {left}'s fence would let applications write "
                "on both sides",
                f"Reach the {other} and run `cdc-migrator {verb}` again. Only if it is gone for "
                f"good, with whatever was written there: add --{other}-is-gone.",
            )
        if set(fence.holes(source, copy.tables)) == set(copy.tables):
            return False
        fence.lower(source, name, copy.tables, f"{copy.marker}-lifted", left)
    return True
