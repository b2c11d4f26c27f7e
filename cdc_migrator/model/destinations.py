"""Which entries of a mapping speak of a table, and where they have its rows go. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cdc_migrator.model.mapping import Wanted
from cdc_migrator.model.tables import TableName


def entries(wanted: Sequence[Wanted], table: TableName) -> list[Wanted]:
    """What is said of a table: under its own name, or else of all tables of its schema."""
    own = [one for one in wanted if one.table == str(table)]
    return own or [one for one in wanted if one.table == f"{table.schema}.*"]


def destinations(
    wanted: Sequence[Wanted], tables: Iterable[TableName]
) -> Mapping[TableName, Sequence[TableName]]:
    """The tables of the target that rows go to, of each of these tables that is spoken of."""
    return {
        table: [destination(one, table) for one in said]
        for table in tables
        if (said := entries(wanted, table))
    }


def destination(one: Wanted, table: TableName) -> TableName:
    """The table of the target that an entry has a table's rows go to."""
    if one.to is None:
        return table
    schema, _, name = one.to.partition(".")
    return TableName(schema, table.name if name == "*" else name)
