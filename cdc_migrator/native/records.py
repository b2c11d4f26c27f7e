"""The records of one poll as the library in C keeps them: numbers, and bytes in one piece."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from ctypes import POINTER, Structure, byref, c_int64, c_uint8, c_void_p, memmove, string_at
from dataclasses import dataclass
from typing import Any

from cdc_migrator.native.library import library

Headers = list[tuple[str, bytes | None]]
_Numbers = POINTER(c_int64)
_Bytes = POINTER(c_uint8)


@dataclass(frozen=True, slots=True)
class Record:
    """One of them, as `confluent_kafka.Message` shows it."""

    _offset: int
    _sent_ms: int
    _key: bytes | None
    _value: bytes | None
    _headers: Headers | None

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        """1 (the producer's time), and milliseconds since 1970 UTC."""
        return 1, self._sent_ms

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> Headers | None:
        return self._headers


class _Members(Structure):
    """`records` in records.h."""

    _fields_ = (
        ("count", c_int64),
        ("offsets", _Numbers),
        ("sent_ms", _Numbers),
        ("lengths", _Numbers),
        ("key_lengths", _Numbers),
        ("values", c_void_p),
        ("keys", c_void_p),
        ("headers", c_void_p),
        ("headers_length", c_int64),
        ("memory", c_void_p),
    )


class Records:
    """What one poll brought, in the order of the log; its memory goes with it.

    Attributes:
        members: for the library; empty until it fills them.
    """

    __slots__ = ("_headers", "_library", "members")

    def __init__(self) -> None:
        self._library = library()
        assert self._library is not None
        self.members = _Members()
        self._headers: dict[int, Headers] | None = None

    def __del__(self) -> None:
        if self._library is not None:
            self._library.cdcm_records_free(byref(self.members))

    @classmethod
    def of(cls, messages: Sequence[Any]) -> Records:
        """Those of other messages. Raises MemoryError."""
        made = cls()
        members, lib = made.members, made._library
        values = [one.value() for one in messages]
        keys = [one.key() for one in messages]
        joined = [b"".join(one or b"" for one in some) for some in (values, keys)]
        headers = b"".join(_packed(at, one.headers()) for at, one in enumerate(messages))
        sizes = [len(one) for one in (*joined, headers)]
        assert lib is not None
        if not lib.cdcm_records_new(byref(members), len(messages), *sizes):
            raise MemoryError
        for to, some in (
            (members.offsets, (one.offset() for one in messages)),
            (members.sent_ms, (one.timestamp()[1] for one in messages)),
            (members.lengths, (-1 if one is None else len(one) for one in values)),
            (members.key_lengths, (-1 if one is None else len(one) for one in keys)),
        ):
            numbers = array("q", some)
            memmove(to, numbers.buffer_info()[0], 8 * len(numbers))
        for place, some_bytes in zip(
            (members.values, members.keys, members.headers), (*joined, headers), strict=True
        ):
            memmove(place, some_bytes, len(some_bytes))
        return made

    def __len__(self) -> int:
        return int(self.members.count)

    def __iter__(self) -> Iterator[Record]:
        """Each as a message."""
        value = key = 0
        members = self.members
        for place in range(members.count):
            yield self.record(place, value, key)
            value += max(members.lengths[place], 0)
            key += max(members.key_lengths[place], 0)

    def record(self, place: int, value: int, key: int) -> Record:
        """One of them, whose value and key begin there."""
        members = self.members
        length, key_length = members.lengths[place], members.key_lengths[place]
        return Record(
            members.offsets[place],
            members.sent_ms[place],
            None if key_length < 0 else string_at(members.keys + key, key_length),
            None if length < 0 else string_at(members.values + value, length),
            self.headers(place),
        )

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return int(self.members.keys - self.members.values)

    @property
    def last_offset(self) -> int:
        """Of the last record."""
        return int(self.members.offsets[self.members.count - 1])

    def headers(self, place: int) -> Headers | None:
        """Those of one record; None where it has none."""
        if not self.members.headers_length:
            return None
        if self._headers is None:
            self._headers = dict(_unpacked(self.members.headers, self.members.headers_length))
        return self._headers.get(place)


def _packed(place: int, headers: Iterable[tuple[str, bytes | str | None]] | None) -> bytes:
    """As records.h says."""
    if not headers:
        return b""
    some = [(name.encode(), _bytes(value)) for name, value in headers]
    packed = struct.pack("=2q", place, len(some))
    for name, value in some:
        packed += struct.pack("=2q", len(name), -1 if value is None else len(value))
        packed += name + (value or b"")
    return packed


def _bytes(value: bytes | str | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _unpacked(address: int, length: int) -> Iterator[tuple[int, Headers]]:
    packed = string_at(address, length)
    at = 0
    while at < length:
        place, count = struct.unpack_from("=2q", packed, at)
        at += 16
        headers: Headers = []
        for _ in range(count):
            name_length, value_length = struct.unpack_from("=2q", packed, at)
            at += 16 + name_length
            name = packed[at - name_length : at].decode(errors="replace")
            value = None if value_length < 0 else packed[at : at + value_length]
            at += max(value_length, 0)
            headers.append((name, value))
        yield place, headers
