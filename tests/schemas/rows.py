"""A few rows for the tables of a schema that comes without any, and their way to the target."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql

from cdc_migrator.model.tables import TableName

_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod),
       coalesce(b.typcategory, t.typcategory)::text, a.attgenerated <> '',
       (SELECT enumlabel FROM pg_enum WHERE enumtypid = t.oid
                              ORDER BY enumsortorder LIMIT 1)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_type b ON b.oid = t.typbasetype
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
# By the category of the type: the n-th row's value. All numbers are n, so that keys are found.
_VALUES = {
    "N": "{n}",
    "S": "'{n}'",
    "B": "true",
    "D": "date '2024-01-01' + {n}",
    "T": "interval '{n} s'",
    "A": "'{{}}'",
    "V": "B'1'",
    "I": "'10.0.0.{n}'",
    "R": "'empty'",
}
_BY_TYPE = {"uuid": "md5('{n}')::uuid", "json": "'{{}}'", "jsonb": "'{{}}'", "bytea": "'a'"}


def fill(dsn: str, tables: Sequence[TableName], rows: int = 3) -> int:
    """Put rows where the table takes them, its checks, keys and triggers included.

    Returns how many tables have rows then.
    """
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SET synchronous_commit = off")
        left = [table for table in tables if not _any(conn, table)]
        before = -1
        while left and before != len(left):
            before = len(left)
            left = [table for table in left if not _insert(conn, table, rows)]
        return sum(_any(conn, table) for table in tables)


def copy(source: str, target: str, tables: Sequence[TableName]) -> None:
    """Every table's own rows, as they are."""
    with psycopg.connect(source) as one, psycopg.connect(target) as other:
        other.execute("SET session_replication_role = replica")
        for table in tables:
            name = sql.Identifier(table.schema, table.name)
            columns = [row[0] for row in _columns(one, table) if not row[3]]
            listed = sql.SQL(", ").join(map(sql.Identifier, columns))
            out = sql.SQL("COPY (SELECT {} FROM ONLY {}) TO STDOUT").format(listed, name)
            into = sql.SQL("COPY {} ({}) FROM STDIN").format(name, listed)
            if columns:
                with one.cursor().copy(out) as read, other.cursor().copy(into) as write:
                    for data in read:
                        write.write(data)


def _any(conn: psycopg.Connection, table: TableName) -> bool:
    query = sql.SQL("SELECT EXISTS (SELECT FROM {})")
    row = conn.execute(query.format(sql.Identifier(table.schema, table.name))).fetchone()
    return row is not None and bool(row[0])


def _insert(conn: psycopg.Connection, table: TableName, rows: int) -> bool:
    columns = [row for row in _columns(conn, table) if not row[3]]
    names = sql.SQL(", ").join(sql.Identifier(row[0]) for row in columns)
    values = sql.SQL(", ").join(
        sql.SQL("({})").format(sql.SQL(", ").join(_value(*row, n) for row in columns))
        for n in range(1, rows + 1)
    )
    statement = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES {}").format(
        sql.Identifier(table.schema, table.name), names, values
    )
    try:
        conn.execute(statement)
    except psycopg.Error:
        return False  # perhaps in the next turn, when the tables that it refers to have rows
    return _any(conn, table)


def _columns(conn: psycopg.Connection, table: TableName) -> list[tuple[str, str, str, bool, str]]:
    quoted = sql.Identifier(table.schema, table.name).as_string(conn)
    return conn.execute(_COLUMNS.encode(), (quoted,)).fetchall()


def _value(
    _: str, type_: str, category: str, __: bool, label: str | None, n: int
) -> sql.Composable:
    if label is not None:
        return sql.Literal(label)
    template = _BY_TYPE.get(type_, _VALUES.get(category, "NULL"))
    return sql.SQL(template.format(n=n))  # type: ignore[arg-type]
