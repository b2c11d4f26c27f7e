"""What folding must know of a table: its name, its identity, and how to take its rows apart.

No SQL and no driver here; `plan` adds the statements of the target.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cdc_migrator.model.changes import Image, Op, Transaction
from cdc_migrator.model.positions import Snapshot
from cdc_migrator.model.tables import TableName
from cdc_migrator.native.rows import Layout
from cdc_migrator.stream.rows import Text

Row = tuple[Text, ...]


class DecodesRows(Protocol):
    """`stream.rows.RowDecoder`, as far as folding needs it.

    `layout`: None where a row is more than one image taken apart.
    """

    @property
    def layout(self) -> Layout | None: ...

    def decode(self, image: Image, lsn: int) -> Row: ...

    def decode_many(self, images: Sequence[Image]) -> list[tuple[str | None, ...] | None]: ...


class DecodesKeys(Protocol):
    """`stream.rows.KeyDecoder`, as far as folding needs it."""

    @property
    def layout(self) -> Layout: ...

    def decode(self, key: bytes, lsn: int) -> tuple[str, ...]: ...


class SaysValues(Protocol):
    """`beside.SideValues`, as far as folding needs it."""

    name: TableName
    always: bool

    def decode(self, image: Image, lsn: int) -> tuple[Row, Row]: ...


class SaysRows(Protocol):
    """`beside.SideRows`, as far as folding needs it."""

    name: TableName

    def decode(self, image: Image, lsn: int) -> tuple[Op, Row | None, Row | None]: ...


@dataclass(frozen=True, slots=True)
class Reread:
    """A table that was read again under a later snapshot than the stream's start.

    Transactions that the snapshot saw are in the loaded rows already. Commit order is not
    visibility order, so the transaction id is tested; `until` is a log position behind which no
    commit can be visible in the snapshot, which spares the test from there on.

    `former`: what the stream calls the table until it comes to where it was renamed.
    """

    snapshot: Snapshot
    until: int
    former: tuple[TableName, ...] = ()

    def holds(self, transaction: Transaction) -> bool:
        """Whether the loaded rows contain this transaction."""
        return self.covers(transaction.xid, transaction.commit_lsn)

    def covers(self, xid: int, commit_lsn: int) -> bool:
        """The same for the transaction with this id and commit position."""
        return commit_lsn <= self.until and self.snapshot.sees(xid)


@dataclass(frozen=True, slots=True)
class Shape:
    """One table of the stream.

    Attributes:
        columns: names of the columns that a row image carries, in decoding order.
        key_places: places of the key columns in a row, in the key decoder's order; empty for a
            keyless table, whose changes carry whole rows (REPLICA IDENTITY FULL).
        keys: decodes record keys; None for a keyless table.
        numeric_key: the first key column is written as a number, so that a shorter key is a
            smaller one: used for sorting only.
        values: reads the side table that has what the events of a keyed table lack.
        images: reads the side table that has the whole rows of a keyless one.
        reread: set while the table's load holds more than the stream's start.
        relation: the table whose events these are; None: `name`.
        others: where that table is split, what else its events become.
        keeps: what a row has on the target beside what is carried goes along when its key changes,
            and ends with it.
        last: its rows are written behind those of other tables, which they are parts of.
        hooked: a hook adds columns to its rows when they are staged.
    """

    name: TableName
    columns: tuple[str, ...]
    key_places: tuple[int, ...]
    rows: DecodesRows
    keys: DecodesKeys | None
    numeric_key: bool = False
    reread: Reread | None = None
    values: SaysValues | None = None
    images: SaysRows | None = None
    relation: TableName | None = None
    others: tuple[Shape, ...] = ()
    keeps: bool = False
    last: bool = False
    hooked: bool = False

    @property
    def stream(self) -> TableName:
        """The table's name in the stream."""
        return self.relation or self.name

    @property
    def all(self) -> tuple[Shape, ...]:
        """All that the table's events become."""
        return (self, *self.others)

    @property
    def side(self) -> TableName | None:
        """The side table, if there is one."""
        beside = self.values or self.images
        return None if beside is None else beside.name


def by_stream_name(shapes: Iterable[Shape]) -> dict[TableName, Shape]:
    """Each shape under its table's name in the stream, former ones, and that of its side table.

    Where a table is split it is the first one's, which has the `others`.
    """
    of: dict[TableName, list[Shape]] = {}
    for shape in shapes:
        of.setdefault(shape.stream, []).append(shape)
    found = {}
    for name, (first, *rest) in of.items():
        whole = replace(first, others=tuple(rest)) if rest else first
        found[name] = whole
        if whole.side is not None:
            found[whole.side] = whole
    for shape in list(found.values()):
        for name in shape.reread.former if shape.reread else ():
            # Another table may have taken the name.
            found.setdefault(name, replace(shape, relation=name))
    return found
