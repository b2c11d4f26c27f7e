"""Changes of a transaction that is too large for memory, in a file without a name.

A rope of pieces, each a run of changes in memory or in such a file: what is done with a list of
changes on the way to a whole transaction (append, join, cut, look at a place) works alike. The
file is gone when nobody uses it any more, also when the process is killed.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import msgspec

from cdc_migrator.errors import Failed
from cdc_migrator.model.changes import Change, Image, Op
from cdc_migrator.model.tables import TableName
from cdc_migrator.stream.blocks import Stretch

# Every so many changes their place in the file is noted.
_STRIDE = 64
_READ_BYTES = 1 << 20
_GLANCE_BYTES = 1 << 16
_WRITE_BYTES = 1 << 18
_HEAD = 4

_Fields = tuple[int, str, bytes, bytes | None, bytes | None, int, bool, bool]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Fields).decode
_OPS = {op.value: op for op in Op}


@dataclass(frozen=True, slots=True)
class SpillLimits:
    """What one open transaction may hold in memory before its changes go to a file.

    Attributes:
        rows, bytes: row events, and their size on the wire.
        directory: where the file is made; None where temporary files go.
    """

    rows: int = 100_000
    bytes: int = 64 << 20
    directory: Path | None = None


class ChangeFile:
    """Changes written one after the other; any run of them can be read."""

    def __init__(self, directory: Path | None) -> None:
        with _coded():
            self._file = tempfile.TemporaryFile(  # noqa: SIM115
                prefix="cdcm-spill-", dir=directory, buffering=0
            )
        # With the last run of changes that lies in it.
        weakref.finalize(self, self._file.close)
        self._pending = bytearray()
        self._written = 0
        self._places = array("Q")
        self._count = 0
        self._tables: dict[TableName, int] = {}

    def __len__(self) -> int:
        return self._count

    @property
    def tables(self) -> Iterable[TableName]:
        """The tables that were ever written of."""
        return self._tables.keys()

    def append(self, change: Change) -> None:
        """Write one change. Raises Failed: CDCM-SPILL-FILE."""
        if self._count % _STRIDE == 0:
            self._places.append(self._written + len(self._pending))
        number = self._tables.setdefault(change.table, len(self._tables))
        body = _encode(
            (
                number,
                change.op.value,
                change.key,
                _view(change.before),
                _view(change.after),
                change.lsn,
                change.key_moves_on,
                change.key_moved_here,
            )
        )
        self._pending += len(body).to_bytes(_HEAD, "big")
        self._count += 1
        if len(body) >= _WRITE_BYTES:
            # A row may be as large as all that the limits allow: it is not copied once more.
            self._flush()
            self._write(body)
            return
        self._pending += body
        if len(self._pending) >= _WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._write(self._pending)
        self._pending = bytearray()

    def _write(self, data: bytes | bytearray) -> None:
        with _coded(), memoryview(data) as view:
            done = 0
            while done < len(view):
                with view[done:] as rest:
                    done += os.pwrite(self._file.fileno(), rest, self._written + done)
            self._written += done

    def read(self, start: int, stop: int) -> Iterator[Change]:
        """The changes [start, stop), in order."""
        if start >= stop:
            return
        if self._pending:
            self._flush()
        tables = list(self._tables)
        place = self._places[start // _STRIDE]
        skip, left = start % _STRIDE, stop - start
        buffer = b""
        size = _READ_BYTES if left > _STRIDE else _GLANCE_BYTES
        while left:
            at, lacking = 0, size
            view = memoryview(buffer)
            while left and len(buffer) - at >= _HEAD:
                end = at + _HEAD + int.from_bytes(view[at : at + _HEAD], "big")
                if end > len(buffer):
                    lacking = max(size, end - len(buffer))
                    break
                if skip:
                    skip -= 1
                else:
                    yield _change(tables, view[at + _HEAD : end])
                    left -= 1
                at = end
            if left:
                rest = buffer[at:]
                # Nothing that was read is held twice: one row may be most of the memory.
                view.release()
                buffer = b""
                buffer = rest + os.pread(self._file.fileno(), lacking, place)
                assert len(buffer) > len(rest), "the file is shorter than what was written to it"
                place += len(buffer) - len(rest)


def _view(image: Image | None) -> memoryview | None:
    return None if image is None else memoryview(image)


def _change(tables: list[TableName], body: memoryview) -> Change:
    number, op, key, before, after, lsn, moves_on, moved_here = _decode(body)
    old, new = (None if image is None else msgspec.Raw(image) for image in (before, after))
    return Change(tables[number], _OPS[op], key, old, new, lsn, moves_on, moved_here)


@contextmanager
def _coded() -> Iterator[None]:
    """A fault of the file as an error with a remedy."""
    try:
        yield
    except OSError as exc:
        raise Failed(
            "CDCM-SPILL-FILE",
            f"a transaction larger than the memory limit cannot be kept on disk: {exc.strerror}",
            "Make room where temporary files go (TMPDIR), or set `apply.spill_dir`; then start "
            "again.",
        ) from None


# A run of changes [start, stop) of a file or a list.
_Piece = tuple[ChangeFile | Sequence[Change], int, int]


class Spilled(Sequence[Change]):
    """A list of changes most of which lies in files. Appending goes to a file of its own."""

    def __init__(self, pieces: Iterable[_Piece] = (), directory: Path | None = None) -> None:
        self._pieces = [piece for piece in pieces if piece[1] < piece[2]]
        self._length = sum(stop - start for _, start, stop in self._pieces)
        self._directory = directory
        self._tail: ChangeFile | None = None

    @classmethod
    def of(cls, changes: Iterable[Change], directory: Path | None = None) -> Spilled:
        """These changes, written to a file."""
        made = cls((), directory)
        for change in changes:
            made.append(change)
        return made

    @property
    def tables(self) -> set[TableName]:
        """The tables of these changes (and maybe some more)."""
        found: set[TableName] = set()
        for place, start, stop in self._pieces:
            if isinstance(place, ChangeFile):
                found.update(place.tables)
            else:
                found.update(change.table for change in place[start:stop])
        return found

    def append(self, change: Change) -> None:
        """Add one at the end. Raises Failed: CDCM-SPILL-FILE."""
        if self._tail is None:
            self._tail = ChangeFile(self._directory)
            self._pieces.append((self._tail, 0, 0))
        self._tail.append(change)
        self._pieces[-1] = (self._tail, 0, len(self._tail))
        self._length += 1

    def extend(self, changes: Iterable[Change]) -> None:
        """Add several. Raises as `append`."""
        for change in changes:
            self.append(change)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Change]:
        for place, start, stop in self._pieces:
            if isinstance(place, ChangeFile):
                yield from place.read(start, stop)
            else:
                yield from place[start:stop]

    @overload
    def __getitem__(self, index: int) -> Change: ...
    @overload
    def __getitem__(self, index: slice) -> Spilled: ...
    def __getitem__(self, index: int | slice) -> Change | Spilled:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._length)
            assert step == 1, "changes are cut into runs only"
            return Spilled(self._cut(start, stop), self._directory)
        wanted = index + self._length if index < 0 else index
        for change in Spilled(self._cut(wanted, wanted + 1)):
            return change
        raise IndexError(index)

    def _cut(self, start: int, stop: int) -> Iterator[_Piece]:
        before = 0
        for place, first, end in self._pieces:
            here = first - before
            yield place, max(first, start + here), min(end, stop + here)
            before += end - first

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


Changes = list[Change] | Stretch | Spilled


def joined(first: Changes, second: Changes) -> Changes:
    """Both, one behind the other."""
    if isinstance(first, Spilled) or isinstance(second, Spilled):
        return Spilled([*_pieces(first), *_pieces(second)])
    return [*first, *second]


def _pieces(changes: Sequence[Change]) -> list[_Piece]:
    return changes._pieces if isinstance(changes, Spilled) else [(changes, 0, len(changes))]
