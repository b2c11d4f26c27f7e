"""What the catalog says of columns that only a mapping must know: large ones, demanded ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psycopg

from cdc_migrator.model.tables import TableName

_TOASTING = """
SELECT n.nspname, c.relname, a.attname
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE a.attstorage <> 'p' AND a.attnum > 0 AND NOT a.attisdropped
  AND (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
"""
_DEMANDING = """
SELECT n.nspname, c.relname, a.attname
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_type t ON t.oid = a.atttypid
WHERE (a.attnotnull OR t.typnotnull) AND NOT a.atthasdef AND a.attidentity = ''
  AND a.attgenerated = '' AND t.typdefault IS NULL AND a.attnum > 0 AND NOT a.attisdropped
  AND (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
"""


def toasting(conn: psycopg.Connection, tables: Sequence[TableName]) -> Mapping[TableName, set[str]]:
    """Columns that may be stored aside, by their tables."""
    return _named(conn, _TOASTING, tables)


def demanding(
    conn: psycopg.Connection, tables: Sequence[TableName]
) -> Mapping[TableName, set[str]]:
    """Columns that every new row needs, and that nothing gives by itself."""
    return _named(conn, _DEMANDING, tables)


def _named(
    conn: psycopg.Connection, query: str, tables: Sequence[TableName]
) -> Mapping[TableName, set[str]]:
    """Columns by the table that they are of."""
    found: dict[TableName, set[str]] = {}
    where = [one.schema for one in tables], [one.name for one in tables]
    for schema, table, column in conn.execute(query, where):
        found.setdefault(TableName(schema, table), set()).add(column)
    return found
