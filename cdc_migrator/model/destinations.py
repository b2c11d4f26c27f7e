"""Which entries of a mapping speak of a table, and where they have its rows go. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cdc_migrator.model.mapping import Wanted
from cdc_migrator.model.tables import Table, TableName


def entries(
    wanted: Sequence[Wanted], table: TableName, root: TableName | None = None
) -> list[Wanted]:
    """What is said of a table: under its own name, or that of the partitioned table that it is part
    of, or else of all tables of its schema."""
    for name in (str(table), str(root), f"{table.schema}.*"):
        if said := [one for one in wanted if one.table == name]:
            return said
    return []


def destinations(
    wanted: Sequence[Wanted], tables: Iterable[Table]
) -> Mapping[TableName, Sequence[TableName]]:
    """The tables of the target that rows go to, of each of these tables that is spoken of."""
    return {
        table.name: [destination(one, table.name, table.root) for one in said]
        for table in tables
        if (said := entries(wanted, table.name, table.root))
    }


def destination(one: Wanted, table: TableName, root: TableName | None = None) -> TableName:
    """The table of the target that an entry has a table's rows go to."""
    if one.to is None:
        return root if root is not None and one.table == str(root) else table
    schema, _, name = one.to.partition(".")
    return TableName(schema, table.name if name == "*" else name)
