"""The records of a full poll as one block: taken apart together, and kept as bytes.

A row event in a block is a row of numbers (where its key and its image lie, what it does) until
somebody looks at it: then it becomes a `Change`, as `envelope` makes one. What is done for every
event of a full topic is done for the block, by the library in C (`cdc_migrator.native`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ctypes import byref, c_int64, string_at
from itertools import repeat
from operator import add, ne
from typing import overload

from cdc_migrator.model.changes import Change, Transaction
from cdc_migrator.model.tables import TableName
from cdc_migrator.native.library import BEGIN, END, FIELDS, ROW, RUN_FIELDS, WHOLE, library
from cdc_migrator.native.records import Record as FetchedRecord
from cdc_migrator.native.records import Records
from cdc_migrator.stream.envelope import Begin, End, Envelope, Message, Record, Rows

# With fewer records, or with larger ones, there is nothing to gain.
FEW_RECORDS = 48
_LARGE = 1 << 14

# Places of numbers in an event.
_LSN, _VALUE, _KEY = 3, 7, 11


class Block:
    """The records of one poll.

    Attributes:
        records: their bytes.
        events: what the library found, `FIELDS` numbers for each record.
        tables: names by the number that events have; grows.
    """

    __slots__ = ("_envelope", "_fields", "events", "records", "tables")

    def __init__(self, envelope: Envelope, records: Records, tables: list[TableName]) -> None:
        self._envelope = envelope
        self.records = records
        self.events = (c_int64 * (len(records) * FIELDS))()
        self._fields = memoryview(self.events).cast("B").cast("q")
        self.tables = tables

    def changes(self, places: Iterable[int]) -> Iterator[Change]:
        """The row events at these places."""
        decode = self._envelope.another().decode_change
        for place in places:
            one = self.record(place)
            yield decode(one.offset(), one.key() or b"", one.value() or b"", one.headers())

    def lsn(self, place: int) -> int:
        """The position of the row event at this place."""
        return self._fields[place * FIELDS + _LSN]

    def record(self, place: int) -> FetchedRecord:
        """One record as a message."""
        fields, at = self._fields, place * FIELDS
        return self.records.record(place, fields[at + _VALUE], fields[at + _KEY])


class Stretch(Sequence[Change]):
    """Row events of one transaction that lie in blocks; each is decoded when it is looked at.

    Attributes:
        ranges: block, first place and the one behind the last, of each run.
    """

    __slots__ = ("_length", "ranges")

    def __init__(self, block: Block, start: int, stop: int) -> None:
        self.ranges: tuple[tuple[Block, int, int], ...] = ((block, start, stop),)
        self._length = stop - start

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Change]:
        for block, start, stop in self.ranges:
            yield from block.changes(range(start, stop))

    @overload
    def __getitem__(self, index: int) -> Change: ...
    @overload
    def __getitem__(self, index: slice) -> list[Change]: ...
    def __getitem__(self, index: int | slice) -> Change | list[Change]:
        if isinstance(index, slice):
            return list(self)[index]
        place = index + self._length if index < 0 else index
        for block, start, stop in self.ranges:
            if 0 <= place < stop - start:
                return next(block.changes((start + place,)))
            place -= stop - start
        raise IndexError(index)

    def copied(self) -> Stretch:
        """The same, to be added to."""
        made = Stretch.__new__(Stretch)
        made.ranges, made._length = self.ranges, self._length
        return made

    def extend(self, more: Sequence[Change]) -> None:
        """Add those of a further run."""
        assert isinstance(more, Stretch)
        self.ranges += more.ranges
        self._length += len(more)


def first_lsn(changes: Sequence[Change]) -> int:
    """The position of the first of some changes, without decoding it where it lies in a block."""
    if isinstance(changes, Stretch):
        block, start, _ = changes.ranges[0]
        return block.lsn(start)
    return changes[0].lsn


def last_lsn(changes: Sequence[Change]) -> int:
    """That of the last one."""
    if isinstance(changes, Stretch):
        block, _, stop = changes.ranges[-1]
        return block.lsn(stop - 1)
    return changes[-1].lsn


class BlockDecoder:
    """Decodes the records of one partition, many at a time; `few`: not worth it."""

    def __init__(self, envelope: Envelope, few: int = FEW_RECORDS) -> None:
        self._envelope = envelope
        self._few = few
        self._library = library()
        self._tables: list[TableName] = []
        self._runs = (c_int64 * 0)()
        self._names = None if self._library is None else self._library.cdcm_names_new()

    def __del__(self) -> None:
        if self._library is not None and self._names:
            self._library.cdcm_names_free(self._names)

    def decode_many(self, messages: Sequence[Message] | Records) -> Iterator[Record]:
        """As `Envelope.decode_many`; what lies in one poll from BEGIN to END and is plain is given
        as the transaction that it makes, with those that follow it."""
        if self._library is None or len(messages) < self._few:
            return self._envelope.decode_many(messages)
        records = messages if isinstance(messages, Records) else Records.of(messages)
        if records.size > _LARGE * len(records):
            return self._envelope.decode_many(records)
        return self._decode(records)

    def _decode(self, records: Records) -> Iterator[Record]:
        lib, count = self._library, len(records)
        assert lib is not None
        block = Block(self._envelope, records, self._tables)
        lib.cdcm_scan(self._names, byref(records.members), block.events)
        self._learn_names()
        if len(self._runs) < count * RUN_FIELDS:
            self._runs = (c_int64 * (count * RUN_FIELDS))()
        found = lib.cdcm_runs(block.events, byref(records.members), self._runs)
        told = memoryview(self._runs).cast("B").cast("q")[: found * RUN_FIELDS]
        # By column: a transaction takes a third of the time of one that is made by itself.
        return self._records(block, *(told[at::RUN_FIELDS].tolist() for at in range(RUN_FIELDS)))

    def _learn_names(self) -> None:
        lib, tables = self._library, self._tables
        assert lib is not None
        for number in range(len(tables), lib.cdcm_names_count(self._names)):
            schema, table = c_int64(), c_int64()
            place = lib.cdcm_name(self._names, number, byref(schema), byref(table))
            both = string_at(place, schema.value + table.value)
            name = TableName(both[: schema.value].decode(), both[schema.value :].decode())
            tables.append(name)

    def _records(
        self,
        block: Block,
        kinds: list[int],
        firsts: list[int],
        counts: list[int],
        offsets: list[int],
        sent_ms: list[int],
        plain: list[int],
        sizes: list[int],
        xids: list[int],
        lsns: list[int],
        seconds: list[int],
        lasts: list[int],
        at_us: list[int],
        numbers: list[int],
        last_numbers: list[int],
        starts: list[int],
        stops: list[int],
        together: list[int],
    ) -> Iterator[Record]:
        at = 0
        while at < len(kinds):
            kind = kinds[at]
            if kind == WHOLE:
                some = slice(at, at + together[at])
                yield list(
                    map(
                        Transaction,
                        xids[some],
                        lsns[some],
                        lasts[some],
                        at_us[some],
                        map(Stretch, repeat(block), starts[some], stops[some]),
                        offsets[some],
                        map(add, offsets[some], counts[some]),
                        map(ne, seconds[some], lsns[some]),
                        sizes[some],
                        repeat(None),
                        sent_ms[some],
                    )
                )
                at = some.stop
                continue
            offset, size, sent = offsets[at], sizes[at], sent_ms[at]
            if kind == ROW:
                yield Rows(
                    offset,
                    size,
                    sent,
                    xids[at],
                    numbers[at],
                    last_numbers[at],
                    at_us[at],
                    Stretch(block, starts[at], stops[at]),
                    bool(plain[at]),
                )
            elif kind == BEGIN:
                yield Begin(offset, size, sent, xids[at], lsns[at])
            elif kind == END:
                yield End(offset, size, sent, xids[at], lsns[at], numbers[at])
            else:
                odd = block.record(firsts[at])
                yield self._envelope.decode(offset, sent, odd.key(), odd.value(), odd.headers())
            at += 1
