"""What is told of a change of the schema: to people, with the statement for the target. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cdc_migrator.databases.postgres.side import Side
from cdc_migrator.errors import MigratorError, StreamHalted
from cdc_migrator.model.described import Described
from cdc_migrator.model.tables import TableName
from cdc_migrator.service.alteration import Change, Kind
from cdc_migrator.service.schema_step import Step


@dataclass(frozen=True, slots=True)
class Place:
    """Where the stream stands; `found`: it was not told there, but found by looking."""

    position: str
    commit_lsn: int
    found: bool = False


def finding(waiting: Sequence[Step], said: str, refused: str, at: Place) -> MigratorError:
    """What `status` shows while the stream waits."""
    names = ", ".join(str(one.before.name) for one in waiting)
    how = (
        "this was found by looking: it is a detection, not a position"
        if at.found
        else "the stream waits exactly there"
    )
    why = f"; the target does not accept it: {refused}" if refused else ""
    return StreamHalted(
        "CDCM-SCHEMA-CHANGED",
        f"the source has changed {names}: {told_of(waiting)}; {how}{why}",
        at.position,
        f"{said}`cdc-migrator run` goes on by itself once the target has it.",
    )


def told_of(some: Iterable[Step]) -> str:
    """The differences that the stream cannot do without, in words."""
    return "; ".join(str(change) for one in some for change in one.changes if change.needed)


def statements(wanted: Iterable[Step], target: Mapping[TableName, Described] | None) -> str:
    """What to run on the target, for people."""
    lacking: list[Change] = []
    for one in wanted:
        lacking += one.changes if target is None else one.lacking(target)
    said = [statement for change in lacking for statement in change.statements]
    told = f"Run on the target: {'; '.join(dict.fromkeys(said))}. " if said else ""
    if any(one.kind is Kind.TABLE_DROPPED for one in lacking):
        told += "To keep its rows, give the table another name there instead. "
    return told


def sends(beside: Side | None) -> object:
    """What a side table carries, and for which columns."""
    if beside is None:
        return None
    return (
        beside.name,
        [(column.name, column.type_text) for column in (*beside.key, *beside.columns)],
        [column.name for column in beside.left_out],
        beside.always,
    )


def added(one: Step) -> bool:
    """Whether there is something that the target may get later."""
    return any(change.kind is Kind.CONSTRAINT_ADDED for change in one.changes)
