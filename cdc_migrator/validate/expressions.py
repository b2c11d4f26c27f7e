"""SQL that rules are made of: the rows that a rule is about, conditions on them, bounds. Pure.

What the user wrote stands in parentheses and on lines of its own, so that a comment in it ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from psycopg import sql

from cdc_migrator.databases.postgres.relations import Relation
from cdc_migrator.databases.postgres.types import equality
from cdc_migrator.model.tables import Column

WHOLE_NUMBERS = frozenset(f"pg_catalog.{name}" for name in ("int2", "int4", "int8", "oid"))
NUMBERS = WHOLE_NUMBERS | {f"pg_catalog.{name}" for name in ("numeric", "float4", "float8")}
MOMENTS = frozenset(f"pg_catalog.{name}" for name in ("date", "timestamp", "timestamptz"))
TEXTS = frozenset(f"pg_catalog.{name}" for name in ("text", "varchar", "bpchar"))


def scope(on: Relation, where: str | None) -> sql.Composed:
    """The rows that a rule is about, as ``t``."""
    if where is None:
        return sql.SQL("{} AS t").format(on.from_)
    rows = on.from_ if on.made is None else sql.SQL("{} AS t").format(on.made)
    return sql.SQL("(SELECT * FROM {} WHERE {}) AS t").format(rows, given(where))


def given(condition: str) -> sql.Composable:
    """A condition of the user's."""
    # It is the user's own SQL: it runs as one statement, in a transaction that only reads.
    return sql.SQL("(\n{}\n)").format(sql.SQL(condition))


def column(name: str, alias: str = "t") -> sql.Identifier:
    """``"t"."a"``."""
    return sql.Identifier(alias, name)


def comma(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def all_of(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(" AND ").join(parts)


def filled(columns: Iterable[str]) -> sql.Composed:
    """Every one of these has a value."""
    return all_of(sql.SQL("{} IS NOT NULL").format(column(one)) for one in columns)


def bare(type_: str) -> sql.Identifier:
    """A type without length or scale."""
    schema, _, name = type_.partition(".")
    return sql.Identifier(schema, name)


def plain(value: object) -> str:
    """A value of the file as PostgreSQL reads it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def bound(value: float | str, of: Column) -> sql.Composable:
    """A bound in the form in which it can be held against the column."""
    to = "pg_catalog.numeric" if of.base_type in WHOLE_NUMBERS else of.base_type
    return sql.SQL("{}::{}").format(sql.Literal(plain(value)), bare(to))


def outside(of: Column, low: float | str | None, high: float | str | None) -> sql.Composable:
    """The column lies beyond a bound."""
    beyond = []
    if low is not None:
        beyond.append(sql.SQL("{} < {}").format(column(of.name), bound(low, of)))
    if high is not None:
        beyond.append(sql.SQL("{} > {}").format(column(of.name), bound(high, of)))
    return sql.SQL("({})").format(sql.SQL(" OR ").join(beyond))


def none_of(of: Column, values: Sequence[object]) -> sql.Composable:
    """The column has another value than these."""
    number = of.base_type in NUMBERS
    # Blanks at the end say nothing in a char(n).
    padded = of.base_type == "pg_catalog.bpchar"
    to = sql.SQL("numeric" if number else "bpchar::text" if padded else "text")
    each = comma(sql.SQL("{}::{}").format(sql.Literal(plain(one)), to) for one in values)
    has = column(of.name) if number else sql.SQL("{}::text").format(column(of.name))
    return sql.SQL("{} <> ALL (ARRAY[{}])").format(has, each)


def not_of_type(of: Column, type_: str) -> sql.Composable:
    """The column's text does not read as a value of the type."""
    return sql.SQL("NOT pg_input_is_valid({}::text, {})").format(
        column(of.name), sql.Literal(type_)
    )


def unmatched(columns: Sequence[str], other: Relation, referenced: Sequence[str]) -> sql.Composable:
    """No row of `other` is what these columns refer to; a row with an empty one refers to none."""
    pairs = []
    for here, there in zip(columns, referenced, strict=True):
        of = other.column(there)
        assert of is not None
        pairs.append(sql.SQL("{} {} {}").format(column(there, "r"), equality(of), column(here)))
    return sql.SQL("{} AND NOT EXISTS (SELECT FROM {} AS r WHERE {})").format(
        filled(columns), other.from_, all_of(pairs)
    )


def address(on: Relation) -> list[sql.Composable]:
    """What names a row: its key, or where it lies."""
    return [column(one) for one in on.key] or [sql.SQL("{}").format(column("ctid"))]


def text(statement: sql.Composable, most: int | None = None) -> str:
    """A statement as a person reads and types it."""
    limit = f" LIMIT {most}" if most is not None else ""
    return statement.as_string().strip() + limit


def number(value: str | None) -> Decimal:
    """A number as the server writes it."""
    return Decimal(value or 0)
