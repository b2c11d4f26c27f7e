"""The records of a full poll as one block: taken apart together, and kept as bytes.

A row event in a block is a row of numbers (where its key and its image lie, what it does) until
somebody looks at it: then it becomes a `Change`, as `envelope` makes one. What is done for every
event of a full topic is done for the block, by the library in C (`cdc_migrator.native`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from ctypes import byref, c_int64, string_at
from typing import Any, overload

from cdc_migrator.model.changes import Change, Transaction
from cdc_migrator.model.tables import TableName
from cdc_migrator.native.library import BEGIN, END, FIELDS, ROW, RUN_FIELDS, WHOLE, library
from cdc_migrator.stream.envelope import Begin, End, Envelope, Message, Record, Rows

# With fewer records, or with larger ones, there is nothing to gain.
FEW_RECORDS = 48
_LARGE = 1 << 14

_Headers = Any
# Places of numbers in an event.
_VALUE, _VALUE_LENGTH, _KEY, _KEY_LENGTH, _MOVED = 7, 8, 11, 12, 13


class Block:
    """The records of one poll.

    Attributes:
        values, keys: their bytes, one behind the other.
        events: what the library found, `FIELDS` numbers for each record.
        fields: the same to look at.
        tables: names by the number that events have; grows.
    """

    __slots__ = ("_envelope", "_headers", "events", "fields", "keys", "offsets", "tables", "values")

    def __init__(
        self,
        envelope: Envelope,
        values: bytes,
        keys: bytes,
        offsets: array[int],
        headers: dict[int, _Headers],
        tables: list[TableName],
    ) -> None:
        self._envelope = envelope
        self._headers = headers
        self.values = values
        self.keys = keys
        self.offsets = offsets
        self.events = (c_int64 * (len(offsets) * FIELDS))()
        self.fields = memoryview(self.events).cast("B").cast("q")
        self.tables = tables
        for place in headers:
            self.fields[place * FIELDS + _MOVED] = 1

    def changes(self, places: Iterable[int]) -> Iterator[Change]:
        """The row events at these places."""
        fields, decode = self.fields, self._envelope.another().decode_change
        for place in places:
            at = place * FIELDS
            value, key = fields[at + _VALUE], fields[at + _KEY]
            yield decode(
                self.offsets[place],
                self.keys[key : key + fields[at + _KEY_LENGTH]],
                self.values[value : value + fields[at + _VALUE_LENGTH]],
                self._headers.get(place),
            )


class Stretch(Sequence[Change]):
    """Row events of one transaction that lie in blocks; each is decoded when it is looked at.

    Attributes:
        ranges: block, first place and the one behind the last, of each run.
    """

    __slots__ = ("_length", "ranges")

    def __init__(self, ranges: tuple[tuple[Block, int, int], ...], length: int) -> None:
        self.ranges = ranges
        self._length = length

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
        return Stretch(self.ranges, self._length)

    def extend(self, more: Sequence[Change]) -> None:
        """Add those of a further run."""
        assert isinstance(more, Stretch)
        self.ranges += more.ranges
        self._length += len(more)


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

    def decode_many(self, messages: Sequence[Message]) -> Iterator[Record]:
        """As `Envelope.decode_many`; what lies in one poll from BEGIN to END and is plain is given
        as the transaction that it makes."""
        if self._library is None or len(messages) < self._few:
            return self._envelope.decode_many(messages)
        values = [message.value() or b"" for message in messages]
        lengths = array("q", map(len, values))
        if sum(lengths) > _LARGE * len(values):
            return self._envelope.decode_many(messages)
        return self._decode(messages, values, lengths)

    def _decode(
        self, messages: Sequence[Message], values: list[bytes], lengths: array[int]
    ) -> Iterator[Record]:
        lib, count = self._library, len(messages)
        assert lib is not None
        keys = [message.key() or b"" for message in messages]
        key_lengths = array("q", map(len, keys))
        all_headers = [message.headers() for message in messages]
        headers = {place: one for place, one in enumerate(all_headers) if one}
        offsets = array("q", [message.offset() or 0 for message in messages])
        block = Block(
            self._envelope, b"".join(values), b"".join(keys), offsets, headers, self._tables
        )
        del values, keys, all_headers
        lib.cdcm_scan(
            self._names,
            block.values,
            lengths.buffer_info()[0],
            key_lengths.buffer_info()[0],
            count,
            block.events,
        )
        self._learn_names()
        if len(self._runs) < count * RUN_FIELDS:
            self._runs = (c_int64 * (count * RUN_FIELDS))()
        found = lib.cdcm_runs(block.events, offsets.buffer_info()[0], count, self._runs)
        told = memoryview(self._runs).cast("B").cast("q")[: found * RUN_FIELDS].tolist()
        return self._records(messages, block, zip(*[iter(told)] * RUN_FIELDS, strict=True))

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
        self, messages: Sequence[Message], block: Block, runs: Iterable[tuple[int, ...]]
    ) -> Iterator[Record]:
        offsets = block.offsets
        for run in runs:
            kind, first, count, plain, size, xid, lsn, second, end, at_us, one, last = run
            offset = offsets[first]
            sent_ms = messages[first + count - 1].timestamp()[1]
            if kind == WHOLE:
                yield Transaction(
                    xid,
                    lsn,
                    end,
                    at_us,
                    Stretch(((block, first + 1, first + count - 1),), count - 2),
                    offset,
                    offset + count,
                    second != lsn,
                    size,
                    None,
                    sent_ms,
                )
            elif kind == ROW:
                rows = Stretch(((block, first, first + count),), count)
                yield Rows(offset, size, sent_ms, xid, one, last, at_us, rows, bool(plain))
            elif kind == BEGIN:
                yield Begin(offset, size, sent_ms, xid, lsn)
            elif kind == END:
                yield End(offset, size, sent_ms, xid, lsn, one)
            else:
                odd = messages[first]
                yield self._envelope.decode(offset, sent_ms, odd.key(), odd.value(), odd.headers())
