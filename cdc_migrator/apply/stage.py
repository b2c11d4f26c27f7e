"""Turn a table's folded state into rows for its staging table, or for the statements' own. Pure.

Many rows go into a temporary table by COPY. A few go along with each statement, as arrays: a
temporary table that is filled and emptied again costs more than they do.

A staging row is: kind, the base key, the row's columns; all as text. Kinds:

    d          remove the row at the base key; for a keyless table, one row equal to this one
    c          the row is complete
    u:3,7      columns 3 and 7 stay as they are; its key is in the row
    m:3,7      the same, and it moves here from the base key
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cdc_migrator.apply.follow import TableState
from cdc_migrator.apply.shape import Row, Shape
from cdc_migrator.stream.rows import UNCHANGED

DELETE = "d"
COMPLETE = "c"
NULL = "\\N"

_Cells = Sequence[str | None]
# Rows in one piece of the COPY: bounds what is held twice.
_PIECE = 4096
# So much at most goes along with a statement, whatever the number of rows.
_FEW_BYTES = 1 << 18
_FEW_COLUMNS = 100


@dataclass(frozen=True, slots=True)
class Staged:
    """One table's part of a batch, ready to be sent.

    Attributes:
        payload: COPY text format, in pieces of whole rows.
        few: the same by column, where it is little enough to go along with a statement.
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

    @property
    def moves(self) -> bool:
        """Whether a row moves that needs values from its base."""
        return any(kind.startswith("m") for kind in self.partial)


def unchanged_places(kind: str) -> tuple[int, ...]:
    """The columns that rows of a kind ``u:…`` or ``m:…`` leave as they are."""
    return tuple(int(place) for place in kind[2:].split(","))


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
        len(shape.columns) <= _FEW_COLUMNS
        and sum(map(len, payload)) <= _FEW_BYTES
        and not any(b"\0" in piece for piece in payload)
    )


def _by_column(rows: Iterable[_Cells]) -> list[list[str | None]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _kind(moved: bool, row: Row) -> str:
    places = ",".join(str(place) for place, cell in enumerate(row) if cell is UNCHANGED)
    return ("m:" if moved else "u:") + places


def _complete(prefix: tuple[str | None, ...], rows: Sequence[Row]) -> Iterator[bytes]:
    """Complete rows as `copy_text` has them, each behind the same cells.

    Most rows are written as they are: joined, they have no tab and no line end of their own, and
    nothing to escape.
    """
    begin = "".join(f"{NULL if cell is None else cell}\t" for cell in prefix)
    for start in range(0, len(rows), _PIECE):
        piece = rows[start : start + _PIECE]
        try:
            lines = list(map("\t".join, piece))  # type: ignore[arg-type]
        except TypeError:  # a NULL is no text
            lines = []
        text = "\n".join(lines)
        tabs = len(lines) * (len(piece[0]) - 1)
        plain = "\\" not in text and "\r" not in text and text.count("\t") == tabs
        if lines and plain and text.count("\n") == len(lines) - 1:
            yield (begin + f"\n{begin}".join(lines) + "\n").encode()
        else:
            yield _piece([prefix + row for row in piece])  # type: ignore[operator]


def copy_text(rows: Iterable[_Cells]) -> Iterator[bytes]:
    """Rows in COPY's text format (PostgreSQL documentation, COPY, File Formats), in pieces.

    Works on whole columns: nothing runs once a cell in Python unless a column has something to
    escape beside NULLs.
    """
    piece: list[_Cells] = []
    for row in rows:
        piece.append(row)
        if len(piece) == _PIECE:
            yield _piece(piece)
            piece = []
    if piece:
        yield _piece(piece)


def _piece(rows: list[_Cells]) -> bytes:
    columns = [_column(column) for column in zip(*rows, strict=True)]
    return ("\n".join(map("\t".join, zip(*columns, strict=True))) + "\n").encode()


def _column(cells: tuple[str | None, ...]) -> Sequence[str]:
    nulls = None in cells
    # NUL cannot be in a text of PostgreSQL; the server refuses it where it comes all the same.
    joined = "\0".join(cell for cell in cells if cell is not None) if nulls else "\0".join(cells)  # type: ignore[arg-type]
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
