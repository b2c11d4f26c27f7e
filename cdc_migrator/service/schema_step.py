"""What one transaction of the source does to the tables of the stream, out of its markers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from cdc_migrator.apply.ddl import SchemaChange
from cdc_migrator.apply.signals import Marker
from cdc_migrator.errors import StreamHalted
from cdc_migrator.model import described
from cdc_migrator.model.described import Described
from cdc_migrator.model.tables import TableName
from cdc_migrator.service import altering
from cdc_migrator.service.alteration import Change, Kind, Rewrite


@dataclass(frozen=True, slots=True)
class Step:
    """One table on its way from one description to the next; `after` is None: it is dropped.

    Attributes:
        tokens: of the markers that told of it; none where it was found by looking.
        reload: its rows are to be read from the source again.
        later: objects of it were made that the target may get later.
        found: by looking; nobody told of it at its position.
    """

    before: Described
    after: Described | None
    changes: tuple[Change, ...]
    tokens: tuple[str, ...]
    reload: bool
    later: bool = False
    found: bool = False

    @property
    def name(self) -> TableName:
        """Its name from here on."""
        return self.before.name if self.after is None else self.after.name

    def lacking(self, target: Mapping[TableName, Described]) -> list[Change]:
        """What the stream needs of it and the target does not have."""
        return [one for one in self.changes if one.needed and not self.met(one, target)]

    def met(self, change: Change, target: Mapping[TableName, Described]) -> bool:
        """Whether the target has this change; it may have the table under either name."""
        there = target.get(self.name)
        if change.kind is Kind.TABLE_RENAMED:
            return there is not None and self.before.name not in target
        if change.kind is Kind.TABLE_DROPPED and there is not None:
            return self.before.table.root is not None and there.table.root is None
        return altering.met(change, there or target.get(self.before.name))

    def document(self) -> list[dict[str, Any]]:
        """Its changes, for the control schema."""
        return [
            {
                "kind": str(one.kind),
                "what": one.what,
                "before": one.before,
                "after": one.after,
                "statements": list(one.statements),
                "needed": one.needed,
                "reload": one.reload,
            }
            for one in self.changes
        ]


@dataclass(slots=True)
class _Told:
    """What the markers of one transaction say of one table."""

    tokens: list[str]
    last_place: int = 0
    after: Described | None = None
    dropped: bool = False
    found: bool = False
    later: bool = False
    whole_schema: bool = False
    rewrites: tuple[Rewrite, ...] = ()


def steps(
    change: SchemaChange, shapes: Mapping[int, Described], sides: Mapping[TableName, TableName]
) -> tuple[list[Step], list[str]]:
    """What becomes of the tables, and the tokens of markers about others.

    Args:
        shapes: what the tables are in front of the transaction, by oid.
        sides: the names of side tables.

    Raises StreamHalted: CDCM-STREAM-UNDECODABLE.
    """
    told: dict[int, _Told] = {}
    for marker in change.markers:
        _take(told, marker, change.before[marker.token], change.position)
    found = []
    others: list[str] = []
    for oid, one in told.items():
        before = shapes.get(oid)
        if before is None:
            others += one.tokens
            continue
        if one.dropped:
            gone = (altering.dropped(before),)
            found.append(Step(before, None, gone, tuple(one.tokens), reload=False))
            continue
        after = one.after or before
        names = {before.name, after.name, sides.get(before.name)}
        rows_before = any(
            place < one.last_place and row.table in names
            for place, row in enumerate(change.transaction.changes)
        )
        rewrites = one.rewrites
        if one.found and after.file != before.file:
            rewrites = (UNSEEN,)
        made = step(before, after, rewrites, one.tokens, rows_before, one.whole_schema)
        found.append(replace(made, later=one.later, found=one.found))
    return found, others


# Something was rewritten, and nobody saw how.
UNSEEN = Rewrite(2 | 4, plain=False)


def step(
    before: Described,
    after: Described,
    rewrites: Sequence[Rewrite],
    tokens: Iterable[str] = (),
    rows_before: bool = False,
    whole_schema: bool = False,
) -> Step:
    """From one description to the next.

    Args:
        rows_before: its transaction has rows of it in front of the change as well.
        whole_schema: see `altering.changes`.
    """
    found = altering.changes(before, after, rewrites, whole_schema)
    kinds = {one.kind for one in found}
    reload = any(one.reload for one in found)
    if rows_before and not _reads_alike(before, after):
        reload = True
    for one in rewrites:
        if one.of_types and Kind.TYPE_CHANGED not in kinds and one is not UNSEEN:
            reload = True
        filled = Kind.COLUMN_ADDED in kinds or Kind.GENERATED_OTHERWISE in kinds
        if one.reason & 2 and not filled and one is not UNSEEN:
            reload = True
    if UNSEEN in rewrites and found:
        reload = True
    return Step(before, after, tuple(found), tuple(tokens), reload)


def _reads_alike(before: Described, after: Described) -> bool:
    """Whether events of both are read the same way."""
    one, other = before.table, after.table
    return (one.name, one.columns, one.key, one.replica_identity) == (
        other.name,
        other.columns,
        other.key,
        other.replica_identity,
    )


def _take(told: dict[int, _Told], marker: Marker, place: int, position: str) -> None:
    try:
        said = msgspec.json.decode(marker.details or "", type=dict[str, Any])
        oid, event = int(said["oid"]), said["event"]
        one = told.setdefault(oid, _Told([]))
        one.tokens.append(marker.token)
        if event == "drop":
            one.dropped = True
        elif event == "rewrite":
            one.rewrites += (Rewrite(int(said["reason"]), bool(said["plain"])),)
        else:
            one.after = described.read(said["table"])
            one.last_place = place
            one.found = one.found or event == "found"
            one.later = one.later or said["tag"] == "CREATE INDEX"
            one.whole_schema = one.whole_schema or said["tag"] == "ALTER SCHEMA"
    except (msgspec.DecodeError, KeyError, TypeError, ValueError) as exc:
        raise StreamHalted(
            "CDCM-STREAM-UNDECODABLE",
            f"a marker of a change of the schema cannot be read: {type(exc).__name__}",
            position,
        ) from None
