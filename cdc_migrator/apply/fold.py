"""Fold whole transactions into the last state of each row. Pure: no driver, no clock.

A row is followed under its key, as raw bytes, through updates and key changes back to its
*base*: the key under which the target holds it before this batch. What comes out, per table, does
not depend on the order in which it is written, but for one rule: values that stay as they are
(UNCHANGED) come from the target's row at the base, so they are read before that row is removed.

    event                  row known to the batch      unknown key K
    insert at K            halt: it is there           a fresh row
    update at K            next image                  base K, next image
    delete at K            gone; its base goes         base K goes
    key change K -> L      continues at L              base K continues at L
    truncate               all forgotten; from here on an unknown key does not exist

Rows are decoded only when all transactions are in: images that a later one replaced never are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cdc_migrator.apply.shape import Row, Shape
from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Change, Op, Transaction
from cdc_migrator.model.naming import CONTROL_SCHEMA
from cdc_migrator.model.positions import lsn_to_text
from cdc_migrator.model.tables import TableName
from cdc_migrator.stream.rows import UNCHANGED

Counts = tuple[int, int, int, int]
# An enumeration's member costs more to look up than all else that is done for a change.
_INSERT, _UPDATE, _DELETE, _TRUNCATE = Op.INSERT, Op.UPDATE, Op.DELETE, Op.TRUNCATE


@dataclass(slots=True)
class TableState:
    """What one batch makes of one table.

    Attributes:
        truncated: everything that the target held goes first.
        deletes: keys of the target's rows that go and that no row of `complete` replaces; for a
            keyless table whole rows, as often as they go.
        complete: whole rows to be there; for a keyless table to be added.
        partial: (base key or None, row with UNCHANGED values); the key is given where the row
            has moved away from its base.
    """

    shape: Shape
    truncated: bool
    deletes: list[Row] = field(default_factory=list)
    complete: list[Row] = field(default_factory=list)
    partial: list[tuple[tuple[str, ...] | None, Row]] = field(default_factory=list)


@dataclass(slots=True)
class Folded:
    """What one batch makes of all tables.

    Attributes:
        tables: in the order in which the batch first touched them.
        counts: inserts, updates, deletes and truncates that the stream carried, by table.
        control: changes of the service's own tables on the source, in order; not for the target.
    """

    tables: list[TableState]
    counts: dict[TableName, Counts]
    control: list[tuple[Transaction, Change]]


def fold(transactions: Iterable[Transaction], shapes: Mapping[TableName, Shape]) -> Folded:
    """Fold a run of whole transactions.

    Raises:
        StreamHalted: CDCM-STREAM-UNKNOWN-TABLE, CDCM-STREAM-SEQUENCE (an event that cannot
            follow the ones before it), or what the decoders raise.
    """
    folds: dict[TableName, _Keyed | _Keyless] = {}
    control: list[tuple[Transaction, Change]] = []
    for transaction in transactions:
        # Events come in runs of one table: look it up once a run.
        name: TableName | None = None
        take = None
        for change in transaction.changes:
            if change.table is not name:
                name = change.table
                if name.schema == CONTROL_SCHEMA:
                    take = None
                else:
                    current = folds.get(name)
                    if current is None:
                        current = folds[name] = _start(name, shapes, change)
                    reread = current.shape.reread
                    held = reread is not None and reread.holds(transaction)
                    take = current.pass_over if held else current.take
            if take is None:
                control.append((transaction, change))
            else:
                take(change)
    return Folded(
        tables=[one.finish() for one in folds.values()],
        counts={name: one.counts for name, one in folds.items()},
        control=control,
    )


def _start(name: TableName, shapes: Mapping[TableName, Shape], change: Change) -> _Keyed | _Keyless:
    shape = shapes.get(name)
    if shape is None:
        raise StreamHalted(
            "CDCM-STREAM-UNKNOWN-TABLE",
            f"the stream carries the table {name}, which is not part of this migration",
            f"change at {lsn_to_text(change.lsn)}",
        )
    return _Keyed(shape) if shape.keys is not None else _Keyless(shape)


def _sequence(shape: Shape, change: Change, what: str) -> StreamHalted:
    return StreamHalted(
        "CDCM-STREAM-SEQUENCE",
        f"the stream {what} in {shape.name}",
        f"change at {lsn_to_text(change.lsn)}",
    )


# One row on its way through the batch: first the change that named it under the key at which the
# target holds it (None for a row that the batch inserted), then the changes that carry its
# images, oldest first. A bare list, because there is one for each row of a batch.
_Followed = list[Any]


class _Counted:
    """How many changes of each kind the stream carried for one table."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._inserts = self._updates = self._deletes = self._truncates = 0

    @property
    def counts(self) -> Counts:
        return (self._inserts, self._updates, self._deletes, self._truncates)

    def pass_over(self, change: Change) -> None:
        """Count a change that the target has already."""
        self._inserts += change.op is _INSERT
        self._updates += change.op is _UPDATE
        self._deletes += change.op is _DELETE
        self._truncates += change.op is _TRUNCATE


class _Keyed(_Counted):
    """Rows told apart by the raw bytes of their keys."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self._truncated = False
        self._live: dict[bytes, _Followed] = {}
        # Keys that the target holds and that no row of the target is at any more.
        self._gone: dict[bytes, Change] = {}
        self._moving: _Followed | None = None

    def take(self, change: Change) -> None:
        op = change.op
        key = change.key
        if op is _UPDATE:
            self._updates += 1
            row = self._live.get(key)
            if row is None:
                self._require_there(change)
                self._live[key] = [change, change]
            else:
                row.append(change)
        elif op is _INSERT:
            self._inserts += 1
            if key in self._live:
                raise _sequence(self.shape, change, "inserts a row that is already there")
            if change.key_moved_here:
                self._arrive(change)
            else:
                self._live[key] = [None, change]
        elif op is _DELETE:
            self._deletes += 1
            row = self._live.pop(key, None)
            if row is None:
                self._require_there(change)
                row = [change]
            if row[0] is not None and row[0].key == key:
                self._gone[key] = change
            if change.key_moves_on:
                self._require_arrived()
                self._moving = row
        else:
            self._truncates += 1
            self._truncated = True
            self._live.clear()
            self._gone.clear()

    def _arrive(self, change: Change) -> None:
        row, self._moving = self._moving, None
        if row is None:
            raise _sequence(self.shape, change, "moves a row that it did not name before")
        row.append(change)
        self._live[change.key] = row

    def _require_arrived(self) -> None:
        if self._moving is not None:
            raise _sequence(self.shape, self._moving[-1], "moves a row to nowhere")

    def _require_there(self, change: Change) -> None:
        if self._truncated or change.key in self._gone:
            raise _sequence(self.shape, change, "changes a row after it was removed")

    def finish(self) -> TableState:
        shape, keys = self.shape, self.shape.keys
        assert keys is not None
        self._require_arrived()
        if b"" in self._live or b"" in self._gone:
            nameless = self._gone.get(b"") or self._live[b""][-1]
            raise _sequence(shape, nameless, "changes a row without its key")
        state = TableState(shape, self._truncated)
        for key in self._sorted(self._live):
            row = self._live[key]
            image = _latest(shape, row)
            if UNCHANGED not in image:
                state.complete.append(image)
                self._gone.pop(key, None)
                continue
            base: Change | None = row[0]
            if base is None:
                raise _sequence(shape, row[1], "inserts a row without all of its values")
            if base.key == key:
                state.partial.append((None, image))
                self._gone.pop(key, None)
            else:
                state.partial.append((keys.decode(base.key, base.lsn), image))
        for key in self._sorted(self._gone):
            state.deletes.append(keys.decode(key, self._gone[key].lsn))
        return state

    def _sorted(self, keys: Iterable[bytes]) -> list[bytes]:
        """Neighbours in the index next to each other: worth a fifth of the write."""
        ordered = sorted(keys)
        if self.shape.numeric_key:
            ordered.sort(key=len)
        return ordered


def _latest(shape: Shape, row: _Followed) -> Row:
    """The newest image, its unchanged values filled from the images before it."""
    image = _decode(shape, row[-1].after, row[-1])
    if UNCHANGED not in image:
        return image
    for older in row[-2:0:-1]:
        image = _fill(image, _decode(shape, older.after, older))
        if UNCHANGED not in image:
            break
    return image


def _fill(image: Row, older: Row) -> Row:
    return tuple(o if n is UNCHANGED else n for n, o in zip(image, older, strict=True))


def _decode(shape: Shape, image: bytes | None, change: Change) -> Row:
    if image is None:
        raise _sequence(shape, change, "carries a change without its row")
    return shape.rows.decode(image, change.lsn)


class _Keyless(_Counted):
    """Rows told apart by their whole content, counted: an update is one less and one more."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self._truncated = False
        self._net: dict[Row, int] = {}

    def take(self, change: Change) -> None:
        self.pass_over(change)
        if change.op is _TRUNCATE:
            self._truncated = True
            self._net.clear()
            return
        before = None
        if change.op is not _INSERT:
            before = _decode(self.shape, change.before, change)
            if UNCHANGED in before:
                raise _sequence(self.shape, change, "names a row without all of its values")
            self._count(before, -1)
        if change.op is not _DELETE:
            after = _decode(self.shape, change.after, change)
            if UNCHANGED in after:
                if before is None:
                    raise _sequence(self.shape, change, "inserts a row without all of its values")
                after = _fill(after, before)
            self._count(after, +1)

    def _count(self, row: Row, by: int) -> None:
        net = self._net.get(row, 0) + by
        if net:
            self._net[row] = net
        else:
            del self._net[row]

    def finish(self) -> TableState:
        state = TableState(self.shape, self._truncated)
        for row, net in self._net.items():
            if net > 0:
                state.complete.extend([row] * net)
            else:
                state.deletes.extend([row] * -net)
        if self._truncated and state.deletes:
            raise StreamHalted(
                "CDCM-STREAM-SEQUENCE",
                f"the stream removes a row of {self.shape.name} after it was truncated",
                str(self.shape.name),
            )
        return state
