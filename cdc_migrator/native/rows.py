"""How one table's rows lie in its events, for the library that writes them out."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from cdc_migrator.model.tables import Straight
from cdc_migrator.native.library import library


class Layout:
    """The columns of a JSON object in the order in which their cells are written.

    Args:
        columns: name, and whether the event carries a JSON string for it.
        in_string, in_other, as_token: spellings of the placeholder for a value that stays: inside
            a string of such a column, inside a string of another column, and as another value.
        texts: of each column, which texts the target reads as they are.

    Attributes:
        straight: whether there are some for every column.
    """

    def __init__(
        self,
        columns: Sequence[tuple[str, bool]],
        in_string: Iterable[bytes] = (),
        in_other: Iterable[bytes] = (),
        as_token: Iterable[bytes] = (),
        texts: Sequence[Straight] = (),
    ) -> None:
        self.straight = bool(texts) and Straight.NONE not in texts
        self._library = library()
        self.handle = None
        if self._library is None:
            return
        words = [
            [name.encode() for name, _ in columns],
            *map(list, (in_string, in_other, as_token)),
        ]
        spelled = b"".join(word for some in words for word in some)
        lengths = array("q", [len(word) for some in words for word in some])
        counts = array("q", map(len, words))
        self.handle = self._library.cdcm_layout_new(
            spelled,
            len(spelled),
            lengths.buffer_info()[0],
            counts.buffer_info()[0],
            bytes(is_string for _, is_string in columns),
            bytes(texts) if texts else bytes(len(columns)),
        )

    def __del__(self) -> None:
        if self._library is not None and self.handle:
            self._library.cdcm_layout_free(self.handle)
