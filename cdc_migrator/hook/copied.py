"""Rows in COPY's text format on their way through a hook.

Their last cells are what it reads; what it gives takes their place. Whatever stands before them
passes as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain

from cdc_migrator.hook.calling import Caller, Cells

NULL = "\\N"
_ESCAPED = re.compile(r"\\(.)")
_MEANT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_TO_ESCAPE = re.compile(r"[\\\n\r\t]")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Passing:
    """Turns blocks of rows into others; a row may be cut between two blocks.

    Args:
        reads: how many cells at the end of each row the hook reads.
    """

    def __init__(self, caller: Caller, reads: int) -> None:
        self._caller = caller
        self._reads = reads
        self._rest: list[bytes] = []

    def through(self, block: bytes) -> bytes:
        """The whole rows that are there by now, as they are to be written.

        Raises as `Caller.run`.
        """
        whole, end, rest = block.rpartition(b"\n")
        if not end:
            self._rest.append(block)
            return b""
        lines = b"".join([*self._rest, whole])
        self._rest = [rest]
        return self._rows(lines)

    def _rows(self, lines: bytes) -> bytes:
        # Nothing is lost of what is no UTF-8, which a server of no encoding may send.
        rows = [
            line.rsplit("\t", self._reads)
            for line in lines.decode(errors="surrogateescape").split("\n")
        ]
        read: list[Cells] = [tuple(map(cell, row[-self._reads :])) for row in rows]
        given = self._caller.run(read)
        return "".join(
            "\t".join([*row[: -self._reads], end]) + "\n"
            for row, end in zip(rows, ends(given), strict=True)
        ).encode(errors="surrogateescape")


def ends(given: Sequence[Cells]) -> list[str]:
    """What a hook gives, as it stands at the ends of rows."""
    try:
        plain = _TO_ESCAPE.search("".join(chain.from_iterable(given))) is None  # type: ignore[arg-type]
    except TypeError:  # a null is no text
        plain = False
    if plain:
        return list(map("\t".join, given))  # type: ignore[arg-type]
    return ["\t".join(map(_written, cells)) for cells in given]


def cell(text: str) -> str | None:
    """The value that is written so."""
    if "\\" not in text:
        return text
    if text == NULL:
        return None
    return _ESCAPED.sub(lambda found: _MEANT.get(found[1], found[1]), text)


def _written(cell: str | None) -> str:
    if cell is None:
        return NULL
    return _TO_ESCAPE.sub(lambda found: _ESCAPES[found[0]], cell)
