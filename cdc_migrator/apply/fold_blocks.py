"""Fold what lies in blocks, by the library in C: the same as `fold` and `stage`, for plain tables.

Plain is a keyed table of the migration as a whole: without a side table, not split, not read
again, with nothing on the target beside what is carried, its rows neither truncated nor moved to
other keys within the batch. All others' changes are left for `fold`, and so are single rows with
values that an update left as they are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from ctypes import CDLL, byref, c_int64, create_string_buffer
from dataclasses import dataclass, field

from msgspec.structs import replace

from cdc_migrator.apply.follow import Keyed
from cdc_migrator.apply.shape import Shape
from cdc_migrator.apply.stage import DELETE, NULL, Staged, along, complete_head, encode
from cdc_migrator.control.progress import Counts
from cdc_migrator.model.changes import Change, Transaction, TruncatePolicy
from cdc_migrator.model.tables import TableName
from cdc_migrator.native.library import (
    FULL,
    MEMORY,
    NOT_STRAIGHT,
    ROW_KEY,
    ROW_STAGED,
    ROW_STRAIGHT,
    WRITTEN,
    library,
)
from cdc_migrator.stream.blocks import Block, Stretch

# With fewer rows there is nothing to gain.
FEW_ROWS = 32
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Taken:
    """What was folded here.

    Attributes:
        staged: its tables, in no order, and `counts` of their events.
        rest: what is still to be folded.
    """

    staged: list[Staged] = field(default_factory=list)
    counts: dict[TableName, Counts] = field(default_factory=dict)
    rest: Sequence[Transaction] = ()


class _GivenUp(Exception):
    """The table with this number is not for this after all."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def fold_blocks(
    transactions: Sequence[Transaction], shapes: Mapping[TableName, Shape], inline: int
) -> Taken:
    """Fold and write out what can be; `inline` as for `stage.encode`.

    Raises MemoryError.
    """
    lib = library()
    tables = _names(transactions, min(FEW_ROWS, inline))
    if lib is None or tables is None:
        return Taken(rest=transactions)
    mine = bytearray(_is_plain(shapes.get(name), name) for name in tables)
    while any(mine):
        try:
            with_blocks = _Fold(lib, tables, mine)
            rest = with_blocks.take(transactions)
            made = [with_blocks.table(number, shapes, inline) for number in with_blocks.touched()]
        except _GivenUp as one:
            mine[one.number] = 0
            continue
        return Taken(
            [staged for staged, _ in made],
            {staged.shape.name: counts for staged, counts in made},
            rest,
        )
    return Taken(rest=transactions)


def _names(transactions: Sequence[Transaction], few: int) -> list[TableName] | None:
    """By their numbers the names of tables; None where this is not for blocks."""
    found: list[TableName] | None = None
    rows = 0
    for one in transactions:
        changes = one.changes
        if not changes:
            continue
        if not isinstance(changes, Stretch):
            return None
        rows += len(changes)
        for block, _, _ in changes.ranges:
            if found is None:
                found = block.tables
            elif found is not block.tables:
                return None
    return found if rows >= few else None


def _is_plain(shape: Shape | None, name: TableName) -> bool:
    return (
        shape is not None
        and shape.keys is not None
        and shape.stream == name
        and shape.side is None
        and shape.reread is None
        and not shape.others
        and not shape.keeps
        and shape.rows.layout is not None
        and shape.rows.layout.handle is not None
        and shape.keys.layout.handle is not None
    )


@dataclass(frozen=True, slots=True)
class _Write:
    """One kind of a table's rows to be written out, each between `before` and `behind`."""

    number: int
    rows: int
    purpose: int
    layout: int | None
    before: str
    behind: str


class _Fold:
    """One attempt; used by one thread."""

    def __init__(self, lib: CDLL, tables: list[TableName], mine: bytearray) -> None:
        self._lib = lib
        self._tables = tables
        self._mine = bytes(mine)
        self._blocks: list[Block] = []
        self._handle = lib.cdcm_fold_new(len(mine))
        if not self._handle:
            raise MemoryError

    def __del__(self) -> None:
        if self._handle:
            self._lib.cdcm_fold_free(self._handle)

    def take(self, transactions: Sequence[Transaction]) -> list[Transaction]:
        """Fold all rows of the tables that are plain; the transactions with the others."""
        rest: list[Transaction] = []
        for block, start, stop, begin, behind in _spans(transactions):
            others = self._take(block, start, stop)
            members = _members(transactions, begin, behind, block) if others else ()
            for transaction, first, end in members:
                places = others[bisect_left(others, first) : bisect_left(others, end)]
                if not places:
                    continue
                changes = list(block.changes(places))
                if rest and rest[-1].commit_lsn == transaction.commit_lsn:
                    rest[-1].changes.extend(changes)  # type: ignore[attr-defined]
                else:
                    rest.append(replace(transaction, changes=changes))
        return rest

    def _take(self, block: Block, start: int, stop: int) -> list[int]:
        """The places of rows that are of other tables, in order."""
        if not self._blocks or self._blocks[-1] is not block:
            self._blocks.append(block)
        others = (c_int64 * (stop - start))()
        count = c_int64()
        found = self._lib.cdcm_fold_take(
            self._handle,
            byref(block.records.members),
            block.events,
            start,
            stop,
            self._mine,
            others,
            byref(count),
        )
        if found < 0:
            raise MemoryError
        if found > 0:
            raise _GivenUp(found - 1)
        return others[: count.value]

    def touched(self) -> list[int]:
        """The numbers of the tables that have rows here."""
        numbers = (c_int64 * len(self._mine))()
        return numbers[: self._lib.cdcm_fold_touched(self._handle, numbers)]

    def table(
        self, number: int, shapes: Mapping[TableName, Shape], inline: int
    ) -> tuple[Staged, Counts]:
        """One table's rows written out, and how many events it had."""
        shape = shapes[self._tables[number]]
        told = (c_int64 * 7)()
        if self._lib.cdcm_fold_table(self._handle, number, shape.numeric_key, told) < 0:
            raise MemoryError
        inserts, updates, deletes, rows, present, gone, fresh = told[:]
        counts: Counts = (inserts, updates, deletes, 0, 0)
        assert shape.keys is not None
        assert shape.rows.layout is not None
        payload: list[bytes] = []
        layout = shape.rows.layout
        if layout.straight and fresh == present and not gone:
            write = _Write(number, rows, ROW_STRAIGHT, layout.handle, "", "\n")
            if self._write(payload, write) == []:
                staged = Staged(shape, False, tuple(payload), 0, present, {}, fresh=True)
                return along(staged, inline), counts
            payload = []
        odd: list[int] = []
        if present:
            head = complete_head(shape)
            write = _Write(number, rows, ROW_STAGED, layout.handle, head, "\n")
            odd = self._write(payload, write) or []
        if gone:
            behind = "".join(f"\t{NULL}" for _ in shape.columns)
            handle = shape.keys.layout.handle
            self._write(
                payload, _Write(number, rows, ROW_KEY, handle, f"{DELETE}\t", f"{behind}\n")
            )
        complete = present - len(odd)
        staged = Staged(shape, False, tuple(payload), gone, complete, {}, there=not fresh)
        if odd:
            by_hand = self._by_hand(number, odd, shape, inserts + updates + deletes)
            staged = _together(staged, by_hand)
        return along(staged, inline), counts

    def _write(self, payload: list[bytes], write: _Write) -> list[int] | None:
        """Add COPY's lines of one kind of rows; the places of those that are for `follow`.

        None where the target would not read a text as it is.
        """
        found: list[int] = []
        odd = (c_int64 * write.rows)()
        progress = (c_int64 * 4)()
        head, tail = write.before.encode(), write.behind.encode()
        room = _PIECE
        out = create_string_buffer(room)
        while True:
            result = self._lib.cdcm_fold_write(
                self._handle,
                write.number,
                write.purpose,
                write.layout,
                head,
                len(head),
                tail,
                len(tail),
                out,
                room,
                odd,
                progress,
            )
            _, written, _, count = progress[:]
            if result == NOT_STRAIGHT:
                return None
            if result not in (WRITTEN, FULL):
                raise MemoryError if result == MEMORY else _GivenUp(write.number)
            found += odd[:count]
            if written:
                payload.append(bytes(memoryview(out)[:written]))
            if result == WRITTEN:
                return found
            if not written:
                room *= 4
                out = create_string_buffer(room)

    def _by_hand(self, number: int, odd: list[int], shape: Shape, events: int) -> Staged:
        """Single rows folded in Python, by all of their changes."""
        keyed = Keyed(shape, TruncatePolicy.APPLY)
        room = (c_int64 * (2 * events))()
        for place in odd:
            count = self._lib.cdcm_fold_changes(self._handle, number, place, room, events)
            for change in self._changes(room[: 2 * count]):
                keyed.take(change)
        return encode(keyed.finish())

    def _changes(self, places: list[int]) -> Iterator[Change]:
        """`places`: blocks and records in turn, the oldest last."""
        for at in range(len(places) - 2, -1, -2):
            yield from self._blocks[places[at]].changes((places[at + 1],))


def _together(one: Staged, other: Staged) -> Staged:
    """Both of the same table."""
    return Staged(
        one.shape,
        False,
        (*one.payload, *other.payload),
        one.deletes + other.deletes,
        one.complete + other.complete,
        other.partial,
        there=one.there and not other.complete,
    )


def _spans(transactions: Sequence[Transaction]) -> Iterator[tuple[Block, int, int, int, int]]:
    """Runs of records in one block, and the places of the transactions whose rows they are.

    Between the rows of two transactions there may be just the END of one and the BEGIN of the next,
    which are no rows.
    """
    block: Block | None = None
    start = stop = begin = 0
    for number, one in enumerate(transactions):
        if not isinstance(one.changes, Stretch):
            continue
        for place, first, end in one.changes.ranges:
            if place is not block or not 0 <= first - stop <= 2:
                if block is not None:
                    yield block, start, stop, begin, number + 1
                block, start, begin = place, first, number
            stop = end
    if block is not None:
        yield block, start, stop, begin, len(transactions)


def _members(
    transactions: Sequence[Transaction], begin: int, behind: int, block: Block
) -> Iterator[tuple[Transaction, int, int]]:
    """Those of some transactions that have rows in a block, and which rows."""
    for one in transactions[begin:behind]:
        if isinstance(one.changes, Stretch):
            for place, first, end in one.changes.ranges:
                if place is block:
                    yield one, first, end
