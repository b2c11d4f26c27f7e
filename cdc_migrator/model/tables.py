"""Tables as the catalog describes them: names, columns, identity."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


@dataclass(frozen=True, slots=True, order=True)
class TableName:
    """A schema-qualified table, exactly as the catalog spells it (unquoted)."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


class ReplicaIdentity(StrEnum):
    """``pg_class.relreplident``: which old values an update or delete carries."""

    DEFAULT = "d"
    FULL = "f"
    INDEX = "i"
    NOTHING = "n"


class Straight(IntEnum):
    """Which of a column's texts in events the input function of its type reads as they are.

    NUMBER: all but the words for what is no number. CALENDAR: those of the years 1 to 9999.
    The order is that of the library (`native/rows.c`).
    """

    NONE = 0
    ANY = 1
    NUMBER = 2
    CALENDAR = 3


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        name: as the catalog spells it.
        type_text: ``format_type`` with modifiers, e.g. ``numeric(10,2)`` or ``shop.mood[]``;
            valid in a cast when the session's search_path is ``pg_catalog``.
        base_type: schema-qualified name of the underlying type after domains are resolved,
            e.g. ``pg_catalog.int4``; for an array that of the array type (``pg_catalog._int4``).
        category: ``pg_type.typtype`` of the resolved type: b(ase), e(num),
            c(omposite), r(ange) or m(ultirange).
        element: for arrays, the base_type of the element, else None.
        element_category: for arrays, the category of the element, else None.
        not_null: declared NOT NULL.
        generated: computed by the database (GENERATED ALWAYS AS ... STORED or VIRTUAL).
        identity: '' none, 'a' always, 'd' by default.
        length: declared length of bit(n), else None.
    """

    name: str
    type_text: str
    base_type: str
    category: str
    element: str | None
    element_category: str | None
    not_null: bool
    generated: bool
    identity: str
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """One ordinary table or leaf partition; of a target perhaps a partitioned one.

    Attributes:
        columns: in attribute order, dropped ones left out.
        key: columns that identify a row in the stream (primary key, or the columns of the
            replica identity index); empty for a keyless table, whose rows are told apart by
            their whole content (REPLICA IDENTITY FULL).
        root: the partitioned table that this is a leaf of, or None.
        estimated_rows, bytes: ``pg_class.reltuples`` (0 where unknown) and main + TOAST size.
        divided: it is partitioned itself: its rows are in other tables.
    """

    name: TableName
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    replica_identity: ReplicaIdentity
    root: TableName | None
    estimated_rows: int
    bytes: int
    divided: bool = False

    def column(self, name: str) -> Column:
        """The column called `name`; raises KeyError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    @property
    def carried(self) -> tuple[Column, ...]:
        """The columns whose values travel: all but the generated ones."""
        return tuple(c for c in self.columns if not c.generated)
