"""Make the target's tables that routes go to and that are not there, as the source sees them.

A table gets the columns with the types of what they are made of, NOT NULL where plain columns have
it, and the primary key by which its rows are told apart. What else the source's tables have has no
place in another shape by itself, partitions neither: it is named, and left to whoever designs the
target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from cdc_migrator.control import journal
from cdc_migrator.databases.postgres import names
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.model.mapping import MappedColumn, Wanted
from cdc_migrator.model.tables import Table, TableName
from cdc_migrator.transform.compile import ways_of
from cdc_migrator.transform.entries import Place, plain_place
from cdc_migrator.transform.faults import Fault, refusal
from cdc_migrator.transform.keys import Way

_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname = ANY(%s)"
_COLLATED = """
SELECT a.attname, cn.nspname, l.collname
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_collation l ON l.oid = a.attcollation JOIN pg_namespace cn ON cn.oid = l.collnamespace
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
  AND a.attcollation <> t.typcollation
"""
# What belongs to a table but for its columns, its NOT NULL and its primary key.
_LEFT = """
WITH of AS (SELECT to_regclass(%s) AS oid)
SELECT word || ' ' || name FROM (
    SELECT 1 AS place, 'index' AS word, x.relname::text AS name
    FROM of JOIN pg_index i ON i.indrelid = of.oid JOIN pg_class x ON x.oid = i.indexrelid
    WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid
                      AND k.conrelid = i.indrelid)
    UNION ALL
    SELECT 2, CASE k.contype WHEN 'f' THEN 'foreign key' WHEN 'u' THEN 'unique' WHEN 'c' THEN
              'check' ELSE 'exclusion' END, k.conname::text
    FROM of JOIN pg_constraint k ON k.conrelid = of.oid WHERE k.contype IN ('f', 'u', 'c', 'x')
    UNION ALL
    SELECT 3, CASE WHEN a.attgenerated <> '' THEN 'generated column' WHEN a.attidentity <> ''
              THEN 'identity of' ELSE 'default of' END, a.attname::text
    FROM of JOIN pg_attribute a ON a.attrelid = of.oid
    WHERE a.attnum > 0 AND NOT a.attisdropped AND (a.atthasdef OR a.attidentity <> '')
    UNION ALL
    SELECT 4, 'trigger', t.tgname::text
    FROM of JOIN pg_trigger t ON t.tgrelid = of.oid JOIN pg_proc p ON p.oid = t.tgfoid
    JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE NOT t.tgisinternal AND n.nspname <> 'cdc_migrator'
    UNION ALL
    SELECT 5, 'policy', p.polname::text FROM of JOIN pg_policy p ON p.polrelid = of.oid
) AS left_out ORDER BY place, name
"""


@dataclass(frozen=True, slots=True)
class Missing:
    """A table of the target that is not there.

    Attributes:
        statement: makes it.
        without: what the source's tables have and it does not get, such as ``index x``.
    """

    target: TableName
    sources: tuple[TableName, ...]
    statement: str
    without: tuple[str, ...]

    def __str__(self) -> str:
        return f"table {self.target}" + (
            f" (without: {', '.join(self.without)})" if self.without else ""
        )


def missing_tables(
    source: psycopg.Connection,
    target: psycopg.Connection,
    wanted: Sequence[Wanted],
    tables: Sequence[Table],
    place: Place = plain_place,
) -> list[Missing]:
    """Each table that a mapping goes to and the target lacks. Changes nothing.

    Raises:
        MigratorError: as `compile.compile_routes`; nothing is asked of rows here.
    """
    if not wanted:
        return []
    ways, faults = ways_of(source, target, wanted, tables, place, foreseen=True)
    by_target: dict[TableName, list[Way]] = {}
    for one in ways:
        if one.there is None:
            by_target.setdefault(one.route.target, []).append(one)
    found = []
    with speaking("source", "reading what its tables have"):
        for of in by_target.values():
            if not faults and not (wrong := _unlike(of, place)):
                found.append(_missing(source, of))
            elif not faults:
                faults += wrong
    if faults:
        raise refusal(faults)
    return found


def make(
    source: psycopg.Connection,
    target: psycopg.Connection,
    wanted: Sequence[Wanted],
    tables: Sequence[Table],
    place: Place = plain_place,
) -> tuple[str, ...]:
    """Make them, in one transaction with its entry in the journal; a line about each.

    Types and functions must be there already: those of the source come with its dump.

    Raises:
        MigratorError: as `missing_tables`; the target refuses a statement.
    """
    missing = missing_tables(source, target, wanted, tables, place)
    if not missing:
        return ()
    schemas = sorted({one.target.schema for one in missing})
    with speaking("target", "making the tables of the mapping"), target.transaction():
        there = {name for (name,) in target.execute(_SCHEMAS, (schemas,))}
        journal.write(target, "mapped-tables-made", tables=[str(one.target) for one in missing])
        for schema in schemas:
            # Asking for one that is there takes the right to make it.
            if schema not in there:
                target.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        for one in missing:
            target.execute(sql.SQL(one.statement))
    return tuple(str(one) for one in missing)


def _unlike(ways: Sequence[Way], place: Place) -> list[Fault]:
    """Where routes to one table would have it in different shapes."""
    first, faults = ways[0], []
    for one in ways[1:]:
        kinds = {column.name: column.type_text for column in first.route.columns}
        differing = [
            column.name
            for column in one.route.columns
            if kinds.get(column.name, column.type_text) != column.type_text
        ]
        if differing:
            what = f"{', '.join(differing)} would be of another type by each"
        elif set(one.route.key) != set(first.route.key):
            what = "its key would be another by each"
        else:
            continue
        faults.append(
            Fault(
                "CDCM-MAPPING-MERGE",
                place(one.entry.number, "to"),
                f"{first.entry.table.name} and {one.entry.table.name} go to {one.route.target}: "
                f"{what}",
                "Bring them together with `rename` and `cast`, or make the table on the target.",
            )
        )
    return faults


def _missing(source: psycopg.Connection, ways: Sequence[Way]) -> Missing:
    first = ways[0].route
    columns: dict[str, MappedColumn] = {}
    for one in ways:
        for column in one.route.columns:
            columns.setdefault(column.name, column)
    collated = {
        name: sql.SQL(" COLLATE {}").format(sql.Identifier(*of))
        for name, of in _collations(source, ways[0]).items()
    }
    lines: list[sql.Composable] = [
        sql.SQL("{} {}{}{}").format(
            sql.Identifier(name),
            names.type_name(column.type_text),
            collated.get(name, sql.SQL("")),
            sql.SQL(" NOT NULL" if all(_never_null(way, name) for way in ways) else ""),
        )
        for name, column in columns.items()
    ]
    if first.key:
        lines.append(sql.SQL("PRIMARY KEY ({})").format(names.columns(first.key)))
    statement = sql.SQL("CREATE TABLE {} (\n    {}\n)").format(
        names.table(first.target), sql.SQL(",\n    ").join(lines)
    )
    sources = tuple(dict.fromkeys(map(_spoken_of, ways)))
    parts = ["partitions"] if any(one.entry.of_partition for one in ways) else []
    without = dict.fromkeys(
        [
            *parts,
            *(
                left
                for one in sources
                for (left,) in source.execute(_LEFT, (names.table(one).as_string(),))
            ),
        ]
    )
    return Missing(first.target, sources, statement.as_string(source), tuple(without))


def _spoken_of(way: Way) -> TableName:
    """The table of the source that its entry speaks of."""
    table = way.entry.table
    return table.root if way.entry.of_partition and table.root is not None else table.name


def _never_null(way: Way, name: str) -> bool:
    """Whether a route gives this column a value in every row."""
    column = next((one for one in way.route.columns if one.name == name), None)
    if column is None:
        return False
    if name in way.constants:
        return True
    return column.of is not None and way.entry.table.column(column.of).not_null


def _collations(source: psycopg.Connection, way: Way) -> Mapping[str, tuple[str, str]]:
    """Of the target's columns that are columns of the source with a collation of their own."""
    table = names.table(way.route.source).as_string()
    own = {name: (schema, of) for name, schema, of in source.execute(_COLLATED, (table,))}
    return {
        one.name: own[one.of]
        for one in way.route.columns
        if one.of in own and one.of is not None and not one.cast
    }
