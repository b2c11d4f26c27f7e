"""The SQL of a route: the source's row as the target has it. Builds text only; runs nothing."""

from __future__ import annotations

from psycopg import sql

from cdc_migrator.databases.postgres import names
from cdc_migrator.model.mapping import MappedColumn, Route


def expression(text: str) -> sql.Composable:
    """An expression of the user's, which may end with a comment."""
    return sql.SQL("({}\n)").format(sql.SQL(text))


def written(column: MappedColumn) -> sql.Composable:
    """A column's value as it is handed over, over the source's row.

    Of the target's type without length or scale: the assignment checks a length, where a cast would
    cut the value in silence. As text where the source does not have the type.
    """
    value = expression(column.expression)
    if not column.cast:
        return value
    base = sql.Identifier(*column.base_type.split(".", 1))
    return sql.SQL("{}::{}").format(value, base if column.common else sql.SQL("text"))


def stored(column: MappedColumn) -> sql.Composable:
    """The same as the target holds it once it is assigned: rounded to its scale."""
    value = expression(column.expression)
    if not column.cast:
        return value
    return sql.SQL("{}::{}").format(
        value, names.type_name(column.type_text) if column.common else sql.SQL("text")
    )


def passing(route: Route) -> sql.Composable:
    """Whether a row of the source is on the target at all."""
    return sql.SQL("true") if route.where is None else expression(route.where)


def belonging(route: Route) -> sql.Composable:
    """Whether a row of the target is this route's."""
    return sql.SQL("true") if route.belongs is None else expression(route.belongs)


def rows_of_source(route: Route) -> sql.Composable:
    """The source's rows as the target holds them, by the target's names and with ``ctid``: a row
    source without a name."""
    return sql.SQL("(SELECT ctid, {} FROM ONLY {} WHERE {})").format(
        sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(stored(one), sql.Identifier(one.name))
            for one in route.columns
        ),
        names.table(route.source),
        passing(route),
    )


def rows_of_target(route: Route) -> sql.Composable:
    """The target's rows that are this route's: a row source without a name."""
    if route.belongs is None:
        return sql.SQL("ONLY {}").format(names.table(route.target))
    return sql.SQL("(SELECT ctid, * FROM ONLY {} WHERE {})").format(
        names.table(route.target), expression(route.belongs)
    )
