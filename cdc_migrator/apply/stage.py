"""Turn a table's folded state into the bytes of one COPY into its staging table. Pure.

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


@dataclass(frozen=True, slots=True)
class Staged:
    """One table's part of a batch, ready to be sent.

    Attributes:
        payload: COPY text format, in pieces of whole rows.
        deletes, complete: number of rows of these kinds.
        partial: number of rows by kind ``u:…`` and ``m:…``.
    """

    shape: Shape
    truncated: bool
    payload: tuple[bytes, ...]
    deletes: int
    complete: int
    partial: dict[str, int]

    @property
    def moves(self) -> bool:
        """Whether a row moves that needs values from its base."""
        return any(kind.startswith("m") for kind in self.partial)


def unchanged_places(kind: str) -> tuple[int, ...]:
    """The columns that rows of a kind ``u:…`` or ``m:…`` leave as they are."""
    return tuple(int(place) for place in kind[2:].split(","))


def encode(state: TableState) -> Staged:
    """The COPY bytes of a table's state."""
    shape = state.shape
    partial: Counter[str] = Counter()
    lines: list[Iterable[_Cells]] = []
    no_base: tuple[None, ...] = (None,) * len(shape.key_places)
    no_row: tuple[None, ...] = (None,) * len(shape.columns)
    if shape.keys is None:
        lines.append((DELETE, *row) for row in state.deletes)  # type: ignore[arg-type]
    else:
        lines.append((DELETE, *key, *no_row) for key in state.deletes)  # type: ignore[arg-type]
    prefix = (COMPLETE, *no_base)
    lines.append(prefix + row for row in state.complete)  # type: ignore[operator]
    for base, row in state.partial:
        kind = _kind(base is not None, row)
        partial[kind] += 1
        cells = [None if cell is UNCHANGED else cell for cell in row]
        lines.append([(kind, *(base or no_base), *cells)])
    return Staged(
        shape=shape,
        truncated=state.truncated,
        payload=tuple(copy_text(row for group in lines for row in group)),
        deletes=len(state.deletes),
        complete=len(state.complete),
        partial=dict(partial),
    )


def _kind(moved: bool, row: Row) -> str:
    places = ",".join(str(place) for place, cell in enumerate(row) if cell is UNCHANGED)
    return ("m:" if moved else "u:") + places


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
