"""Sequences as the catalog describes them: parameters, position, and the columns they feed."""

from __future__ import annotations

from dataclasses import dataclass

from cdc_migrator.model.tables import TableName

# Sequences live in the name space of tables.
SequenceName = TableName

_COLUMN_LIMITS = {
    "pg_catalog.int2": 1 << 15,
    "pg_catalog.int4": 1 << 31,
    "pg_catalog.int8": 1 << 63,
}


@dataclass(frozen=True, slots=True)
class Parameters:
    """What ``ALTER SEQUENCE`` can change; `type` is smallint, integer or bigint."""

    type: str
    start: int
    minimum: int
    maximum: int
    increment: int
    cycle: bool
    cache: int

    @property
    def direction(self) -> int:
        """1 for an ascending sequence, -1 for a descending one."""
        return 1 if self.increment > 0 else -1

    @property
    def limit(self) -> int:
        """The end that it moves to."""
        return self.maximum if self.increment > 0 else self.minimum

    @property
    def first(self) -> int:
        """The end that it moves away from, where it starts again if it cycles."""
        return self.minimum if self.increment > 0 else self.maximum


@dataclass(frozen=True, slots=True)
class Position:
    """``last_value`` and ``is_called``.

    With a cache, `last` is the last value that any session may have, whether it was given or not.
    """

    last: int
    called: bool


@dataclass(frozen=True, slots=True)
class Fed:
    """A column that takes its values from a sequence.

    Attributes:
        base_type: schema-qualified, domains resolved.
        plain: the column's default is the bare ``nextval`` (or it is an identity, or owns the
            sequence), so its values are the sequence's own.
    """

    table: TableName
    column: str
    base_type: str
    plain: bool

    @property
    def comparable(self) -> bool:
        """Whether the column's largest value says how far the sequence has been."""
        return self.plain and (
            self.base_type in _COLUMN_LIMITS or self.base_type == "pg_catalog.numeric"
        )

    def limit(self, direction: int) -> int | None:
        """The last integer in that direction that the column can hold; None: no limit."""
        size = _COLUMN_LIMITS.get(self.base_type)
        if size is None:
            return None
        return size - 1 if direction > 0 else -size

    def __str__(self) -> str:
        return f"{self.table}.{self.column}"


@dataclass(frozen=True, slots=True)
class SequenceState:
    """One sequence of one database, as it was when it was looked at.

    Attributes:
        position: None where the role may not read it.
        feeds: the columns that take values from it, in name order.
        settable: the role may set its value.
    """

    oid: int
    name: SequenceName
    parameters: Parameters
    position: Position | None
    feeds: tuple[Fed, ...]
    settable: bool
