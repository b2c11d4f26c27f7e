"""A table on both sides: which of its columns are compared, and what stands against that.

A column is compared where both sides store it, or both compute it by the same expression. What
only one side computes is left out: the stream does not carry it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg

from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.model.tables import Column, Table, TableName
from cdc_migrator.reconcile.at_once import at_once


@dataclass(frozen=True, slots=True)
class Compared:
    """One column as both sides declare it."""

    source: Column
    target: Column

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def never_null(self) -> bool:
        return self.source.not_null and self.target.not_null

    @property
    def same_type(self) -> bool:
        return self.source.base_type == self.target.base_type

    def on(self, target: bool) -> Column:
        return self.target if target else self.source


@dataclass(frozen=True, slots=True)
class Pair:
    """A table of the source and its copy.

    Attributes:
        columns: what is compared, in the source's order.
        left_out: generated columns that are not compared.
    """

    source: Table
    target: Table
    columns: tuple[Compared, ...]
    left_out: tuple[str, ...]

    @property
    def key(self) -> tuple[Compared, ...]:
        """The key's columns; empty for a keyless table."""
        known = {column.name: column for column in self.columns}
        return tuple(known[name] for name in self.source.key)

    def on(self, target: bool) -> Table:
        return self.target if target else self.source


@dataclass(frozen=True, slots=True)
class Unpaired:
    """A table that cannot be compared, and why."""

    table: TableName
    reason: str


_GENERATED = """
SELECT n.nspname, c.relname, a.attname, pg_get_expr(d.adbin, d.adrelid)
FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE a.attgenerated <> '' AND NOT a.attisdropped
"""

Expressions = Mapping[tuple[TableName, str], str]


def read_pairs(
    source: psycopg.Connection,
    target: psycopg.Connection,
    tables: Mapping[TableName, TableName],
) -> list[Pair | Unpaired]:
    """Look both sides' catalogs up. `tables`: the source's names with the target's."""
    (here, computed_here), (there, computed_there) = at_once(
        lambda: _read(source), lambda: _read(target)
    )
    found: list[Pair | Unpaired] = []
    for name, other in tables.items():
        if name not in here or other not in there:
            side = "target" if name in here else "source"
            found.append(Unpaired(name, f"the {side} has no such table"))
        else:
            found.append(pair(here[name], there[other], computed_here, computed_there))
    return found


def _read(conn: psycopg.Connection) -> tuple[dict[TableName, Table], Expressions]:
    return {table.name: table for table in read_tables(conn)}, _expressions(conn)


def _expressions(conn: psycopg.Connection) -> Expressions:
    return {
        (TableName(schema, table), column): expression
        for schema, table, column, expression in conn.execute(_GENERATED)
    }


def pair(
    source: Table, target: Table, computed_here: Expressions, computed_there: Expressions
) -> Pair | Unpaired:
    """Match the columns by name."""
    there = {column.name: column for column in target.columns}
    compared: list[Compared] = []
    left_out: list[str] = []
    missing: list[str] = []
    for column in source.columns:
        other = there.get(column.name)
        if column.generated and (
            other is None
            or not other.generated
            or computed_here.get((source.name, column.name))
            != computed_there.get((target.name, column.name))
        ):
            left_out.append(column.name)
        elif other is None or other.generated != column.generated:
            missing.append(column.name)
        else:
            compared.append(Compared(column, other))
    if missing:
        return Unpaired(source.name, f"the target does not store {', '.join(missing)}")
    if not compared:
        return Unpaired(source.name, "it has no column that could be compared")
    return Pair(source, target, tuple(compared), tuple(left_out))


def only(pairs: Sequence[Pair | Unpaired]) -> dict[TableName, Pair]:
    """Those that can be compared, by the source's name."""
    return {one.source.name: one for one in pairs if isinstance(one, Pair)}
