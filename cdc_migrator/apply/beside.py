"""What rows of a side table say, decoded. Pure.

The side table is filled by a trigger (`databases.postgres.side`): either with the values that a
row's events lack, under the row's key, or with whole rows, old and new.
"""

from __future__ import annotations

from collections.abc import Sequence

from cdc_migrator.apply.shape import Row
from cdc_migrator.databases.postgres.side import Side
from cdc_migrator.model.changes import Image, Op
from cdc_migrator.model.tables import TableName
from cdc_migrator.stream.rows import UNCHANGED, Columns, RowDecoder, Text


class SideValues:
    """Values of some columns of a keyed table.

    Args:
        key: name and kind of the key's columns, as the table's own events have them.
        places: where the values stand in a row of the table, which has `width` columns.
    """

    def __init__(
        self, side: Side, key: Columns, places: tuple[int, ...], width: int, placeholder: str
    ) -> None:
        self.name = side.name
        self.always = side.always
        self._places = places
        self._width = width
        self._keys = len(key)
        members = [
            ("id", False),
            *((f"k{i}", is_string) for i, (_, is_string) in enumerate(key)),
            *((f"v{i}", True) for i in range(len(places))),
            ("kept", False),
        ]
        self._rows = RowDecoder(side.name, members, placeholder)

    def decode(self, image: Image, lsn: int) -> tuple[Row, Row]:
        """(key, row): the row is UNCHANGED where the side table says nothing."""
        _, *values, kept = self._rows.decode(image, lsn)
        told = () if kept == "true" else self._places
        row = _spread(values[self._keys :] if told else (), told, self._width)
        return tuple(values[: self._keys]), row


class SideRows:
    """Whole rows of a table whose events do not tell its rows apart exactly."""

    def __init__(self, side: Side, placeholder: str) -> None:
        self.name: TableName = side.name
        self._width = len(side.columns)
        texts = [(f"{image}{i}", True) for image in "ba" for i in range(self._width)]
        self._rows = RowDecoder(side.name, [("id", False), ("op", True), *texts], placeholder)

    def decode(self, image: Image, lsn: int) -> tuple[Op, Row | None, Row | None]:
        """What happened, the old and the new row; None where there was or is none."""
        _, op, *values = self._rows.decode(image, lsn)
        before, after = tuple(values[: self._width]), tuple(values[self._width :])
        kind = Op[str(op)]
        old = before if kind in (Op.UPDATE, Op.DELETE) else None
        return kind, old, after if kind in (Op.INSERT, Op.UPDATE) else None


class EventRows:
    """Row images of a table some of whose columns are not in its events.

    Args:
        places: where the event's columns stand in a row, which has `width` columns.
    """

    layout = None

    def __init__(self, rows: RowDecoder, places: tuple[int, ...], width: int) -> None:
        self._rows = rows
        self._places = places
        self._width = width

    def decode(self, image: Image, lsn: int) -> Row:
        """The row; UNCHANGED where the event has no column."""
        return _spread(self._rows.decode(image, lsn), self._places, self._width)

    def decode_many(self, images: Sequence[Image]) -> list[tuple[str | None, ...] | None]:
        """No row is whole: see `decode`."""
        return [None] * len(images)


def _spread(values: Sequence[Text], places: Sequence[int], width: int) -> Row:
    """A row of that width with the values at their places, UNCHANGED elsewhere."""
    row: list[Text] = [UNCHANGED] * width
    for place, value in zip(places, values, strict=True):
        row[place] = value
    return tuple(row)
