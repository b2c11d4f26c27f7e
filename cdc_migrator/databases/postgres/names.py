"""Quote names for SQL, always with their schema, so that no statement depends on search_path."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from cdc_migrator.model.tables import TableName


def table(name: TableName) -> sql.Identifier:
    """``"schema"."table"``."""
    return sql.Identifier(name.schema, name.name)


def alone(name: TableName, divided: bool = False) -> sql.Composable:
    """A table without those that inherit from it; a partitioned one has its rows nowhere else."""
    return table(name) if divided else sql.SQL("ONLY {}").format(table(name))


def columns(names: Iterable[str], alias: str | None = None) -> sql.Composed:
    """``"a", "b"`` or, with an alias, ``"t"."a", "t"."b"``."""
    return sql.SQL(", ").join(
        sql.Identifier(alias, name) if alias else sql.Identifier(name) for name in names
    )


def type_name(text: str) -> sql.SQL:
    """A type as ``format_type`` spells it, for use in a cast.

    The catalog has quoted the name already; it comes from the catalog and from nowhere else.
    """
    return sql.SQL(text)
