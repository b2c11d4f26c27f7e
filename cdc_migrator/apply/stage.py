"""Turn a table's folded state into rows for its staging table, or for the statements' own. Pure.

Many rows go into a temporary table by COPY. A few go along with each statement, as arrays: a
temporary table that is filled and emptied again costs more than they do.

A staging row is: kind, the base key, the row's columns; all as text. Kinds:

    d          remove the row at the base key; for a keyless table, one row equal to this one
    c          the row is complete
    u:3,7      columns 3 and 7 stay as they are; its key is in the row
    m:3,7      the same, and it moves here from the base key

Where the target's table has more than is carried, ``m:`` without columns is a complete row that the
target has at the base key, ``u:`` a new one under a key of another that goes, and ``c`` a new one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from cdc_migrator.apply.follow import TableState
from cdc_migrator.apply.shape import Row, Shape
from cdc_migrator.stream.rows import UNCHANGED

DELETE = "d"
COMPLETE = "c"
NULL = "\\N"

_Cells = Sequence[str | None]
_Some = TypeVar("_Some")
# Rows in one piece of the COPY: bounds what is held twice.
_PIECE = 4096
# Characters that are put together as one text, unless a single row has more: where one of them is
# wide, such as an emoji, every one takes four bytes.
_TEXT = 4 << 20
_SLICE = 1 << 20
# So much at most goes along with a statement, whatever the number of rows.
_FEW_BYTES = 1 << 18
_FEW_COLUMNS = 100


@dataclass(frozen=True, slots=True)
class Staged:
    """One table's part of a batch, ready to be sent.

    Attributes:
        payload: COPY text format, in pieces of whole rows.
        few: the same by column, where it is little enough to go along with a statement.
        fresh: all rows are complete and were inserted by the batch, and the payload has nothing
            but their columns, as texts that the target reads as they are.
        there: the target had all complete rows before the batch.
        deletes, complete: number of rows of these kinds.
        partial: number of rows by kind ``u:…`` and ``m:…``.
    """

    shape: Shape
    truncated: bool
    payload: tuple[bytes, ...]
    deletes: int
    complete: int
    partial: dict[str, int]
    few: list[list[str | None]] | None = None
    fresh: bool = False
    there: bool = False

    def to_stage(self) -> Iterator[bytes]:
        """The payload for the staging table."""
        if not self.fresh:
            yield from self.payload
            return
        # A line end in COPY's text format is nothing but the end of a row.
        head = complete_head(self.shape).encode()
        for piece in self.payload:
            yield head + piece[:-1].replace(b"\n", b"\n" + head) + b"\n"

    @property
    def moves(self) -> bool:
        """Whether a row moves that needs values from its base."""
        return any(kind.startswith("m") for kind in self.partial)


def complete_head(shape: Shape) -> str:
    """What stands in front of a complete row's columns."""
    return "\t".join((COMPLETE, *(NULL for _ in shape.key_places), ""))


def unchanged_places(kind: str) -> tuple[int, ...]:
    """The columns that rows of a kind ``u:…`` or ``m:…`` leave as they are."""
    return tuple(int(place) for place in kind[2:].split(",") if place)


def encode(state: TableState, inline: int = 0) -> Staged:
    """The rows of a table's state.

    Args:
        inline: so many at most go along with a statement. Measured, a table of ten columns is
            quicker by COPY from about 400 rows on.
    """
    shape = state.shape
    no_base: tuple[None, ...] = (None,) * len(shape.key_places)
    no_row: tuple[None, ...] = (None,) * len(shape.columns)
    after = () if shape.keys is None else no_row
    deletes: list[_Cells] = [(DELETE, *row, *after) for row in state.deletes]  # type: ignore[arg-type]
    prefix = (COMPLETE, *no_base)
    kinds: Counter[str] = Counter()
    partial: list[_Cells] = []
    for base, row in state.partial:
        kind = _kind(base is not None, row)
        kinds[kind] += 1
        cells = [None if cell is UNCHANGED else cell for cell in row]
        partial.append([kind, *(base or no_base), *cells])
    payload = (
        *copy_text(deletes),
        *_complete(prefix, state.complete),
        *copy_text(partial),
    )
    few = None
    number = len(deletes) + len(state.complete) + len(partial)
    if number <= inline and _is_little(shape, payload):
        complete: list[_Cells] = [(*prefix, *row) for row in state.complete]  # type: ignore[arg-type]
        few = _by_column([*deletes, *complete, *partial])
    return Staged(
        shape=shape,
        truncated=state.truncated,
        payload=payload,
        deletes=len(state.deletes),
        complete=len(state.complete),
        partial=dict(kinds),
        few=few,
    )


def _is_little(shape: Shape, payload: tuple[bytes, ...]) -> bool:
    # What the server refuses in a text is to be refused by the server.
    return (
        not shape.hooked
        and len(shape.columns) <= _FEW_COLUMNS
        and sum(map(len, payload)) <= _FEW_BYTES
        and not any(b"\0" in piece for piece in payload)
    )


def _by_column(rows: Iterable[_Cells]) -> list[list[str | None]]:
    return [list(column) for column in zip(*rows, strict=True)]


def along(staged: Staged, inline: int) -> Staged:
    """The same, to go along with each statement where it is little enough for that."""
    number = staged.deletes + staged.complete + sum(staged.partial.values())
    if number > inline or not _is_little(staged.shape, staged.payload):
        return staged
    payload = tuple(staged.to_stage())
    lines = b"".join(payload).decode().split("\n")[:-1]
    few = _by_column([[_cell(text) for text in line.split("\t")] for line in lines])
    return replace(staged, payload=payload, few=few, fresh=False)


def _cell(text: str) -> str | None:
    """What `copy_text` writes as this."""
    if "\\" not in text:
        return text
    return None if text == NULL else _ESCAPED.sub(lambda one: _PLAIN[one[0]], text)


def _kind(moved: bool, row: Row) -> str:
    places = ",".join(str(place) for place, cell in enumerate(row) if cell is UNCHANGED)
    return ("m:" if moved else "u:") + places


def _complete(prefix: tuple[str | None, ...], rows: Sequence[Row]) -> Iterator[bytes]:
    """Complete rows as `copy_text` has them, each behind the same cells.

    Most rows are written as they are: joined, they have no tab and no line end of their own, and
    nothing to escape.
    """
    for start in range(0, len(rows), _PIECE):
        yield from _whole(prefix, rows[start : start + _PIECE])


def _whole(prefix: tuple[str | None, ...], piece: Sequence[Row]) -> Iterator[bytes]:
    try:
        lines = [] if _is_large(piece[0]) else list(map("\t".join, piece))  # type: ignore[arg-type]
    except TypeError:  # a NULL is no text
        lines = []
    if len(piece) > 1 and sum(map(len, lines)) > _TEXT:
        for half in _halves(piece):
            yield from _whole(prefix, half)
        return
    text = "\n".join(lines)
    tabs = len(lines) * (len(piece[0]) - 1)
    plain = "\\" not in text and "\r" not in text and text.count("\t") == tabs
    if lines and plain and text.count("\n") == len(lines) - 1:
        begin = "".join(f"{NULL if cell is None else cell}\t" for cell in prefix)
        yield (begin + f"\n{begin}".join(lines) + "\n").encode()
    else:
        yield from _pieces([prefix + row for row in piece])  # type: ignore[operator]


def copy_text(rows: Iterable[_Cells]) -> Iterator[bytes]:
    """Rows in COPY's text format (PostgreSQL documentation, COPY, File Formats), in pieces.

    Works on whole columns: nothing runs once a cell in Python unless a column has something to
    escape beside NULLs.
    """
    piece: list[_Cells] = []
    for row in rows:
        piece.append(row)
        if len(piece) == _PIECE:
            yield from _pieces(piece)
            piece = []
    if piece:
        yield from _pieces(piece)


def _pieces(rows: Sequence[_Cells]) -> Iterator[bytes]:
    if len(rows) == 1 and _is_large(rows[0]):
        yield _large(rows[0])
        return
    columns = []
    for cells in zip(*rows, strict=True):
        column = _column(cells)
        if column is None:
            for half in _halves(rows):
                yield from _pieces(half)
            return
        columns.append(column)
    yield ("\n".join(map("\t".join, zip(*columns, strict=True))) + "\n").encode()


def _halves(rows: Sequence[_Some]) -> tuple[Sequence[_Some], Sequence[_Some]]:
    return rows[: len(rows) // 2], rows[len(rows) // 2 :]


def _is_large(cells: Sequence[Any]) -> bool:
    return sum(map(len, filter(None, cells))) > _TEXT


def _large(cells: _Cells) -> bytes:
    *first, last = [b"\\N" if cell is None else _large_cell(cell) for cell in cells]
    return b"\t".join([*first, last + b"\n"])


def _large_cell(cell: str) -> bytes:
    # Encoding sets aside four bytes for each wide character, and there need not be more than one.
    parts = (cell[start : start + _SLICE] for start in range(0, len(cell), _SLICE))
    return b"".join(_escape_bytes(part.encode()) for part in parts)


def _column(cells: tuple[str | None, ...]) -> Sequence[str] | None:
    """One column's cells, escaped; None where together they are too large."""
    nulls = None in cells
    # What is empty has nothing to escape, either.
    there: Sequence[str] = list(filter(None, cells)) if nulls else cells  # type: ignore[assignment]
    if sum(map(len, there)) > _TEXT:
        return None
    # NUL cannot be in a text of PostgreSQL; the server refuses it where it comes all the same.
    joined = "\0".join(there)
    if "\\" in joined or "\n" in joined or "\t" in joined or "\r" in joined:
        return [NULL if cell is None else _escape(cell) for cell in cells]
    if nulls:
        return [NULL if cell is None else cell for cell in cells]
    return cells  # type: ignore[return-value]


def _escape(cell: str) -> str:
    if "\\" in cell:
        cell = cell.replace("\\", "\\\\")
    if "\n" in cell:
        cell = cell.replace("\n", "\\n")
    if "\t" in cell:
        cell = cell.replace("\t", "\\t")
    if "\r" in cell:
        cell = cell.replace("\r", "\\r")
    return cell


def _escape_bytes(cell: bytes) -> bytes:
    for plain, escaped in _ESCAPES:
        if plain in cell:
            cell = cell.replace(plain, escaped)
    return cell


_PLAIN = {"\\\\": "\\", "\\n": "\n", "\\t": "\t", "\\r": "\r"}
_ESCAPED = re.compile(r"\\[\\ntr]")
_ESCAPES = ((b"\\", b"\\\\"), (b"\n", b"\\n"), (b"\t", b"\\t"), (b"\r", b"\\r"))
