"""What the tables of the stream are at its position, and the changes of the schema that it has met.

A change is settled in the transaction that notes what the table is from there on, so whoever takes
the stream over finds both or none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from cdc_migrator.control import journal
from cdc_migrator.model import described
from cdc_migrator.model.described import Described
from cdc_migrator.model.naming import CONTROL_SCHEMA
from cdc_migrator.model.tables import TableName

_NAMED = """
SELECT c.relname::text, split_part(a.attname, '_', 1) FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname IN ('source_table', 'target_table')
WHERE c.relnamespace = 'cdc_migrator'::regnamespace AND c.relkind = 'r' AND c.relname <> ALL (%s)
"""
# They follow the table's row by their foreign keys; or are a past that stays as it was.
_NOT_NAMED_ANEW = ["backfill_chunk", "table_shape", "schema_change", "side"]

_NOTE = """
INSERT INTO cdc_migrator.table_shape AS s (source_schema, source_table, source_oid, described)
VALUES (%s, %s, %s, %s) ON CONFLICT (source_schema, source_table) DO UPDATE
SET source_oid = excluded.source_oid, described = excluded.described,
    noted_at = clock_timestamp() WHERE %s
"""


@dataclass(frozen=True, slots=True)
class Open:
    """A change that the stream waits at. `changes`: each in words, with its statements."""

    source_schema: str
    source_table: str
    position: str
    changes: list[dict[str, Any]]
    seen_at: datetime


def read(conn: psycopg.Connection) -> dict[TableName, Described]:
    """What is noted of each table."""
    rows = conn.execute("SELECT described FROM cdc_migrator.table_shape")
    return {one.name: one for one in (described.read(document) for (document,) in rows)}


def note(conn: psycopg.Connection, tables: Iterable[Described], anew: bool = True) -> None:
    """Write down what tables are, under the names of their rows; `anew`: also where it is known."""
    with conn.cursor() as cursor:
        cursor.executemany(
            _NOTE,
            [
                (one.name.schema, one.name.name, one.oid, Jsonb(one.document), anew)
                for one in tables
            ],
        )


def rename(conn: psycopg.Connection, before: TableName, after: TableName) -> None:
    """Call a table of the migration by another name, on both sides, wherever it is known."""
    rows = conn.execute(_NAMED, (_NOT_NAMED_ANEW,)).fetchall()
    for name, side in rows:
        conn.execute(
            sql.SQL(
                "UPDATE {table} SET {schema} = %s, {name} = %s WHERE {schema} = %s AND {name} = %s"
            ).format(
                table=sql.Identifier(CONTROL_SCHEMA, name),
                schema=sql.Identifier(f"{side}_schema"),
                name=sql.Identifier(f"{side}_table"),
            ),
            (after.schema, after.name, before.schema, before.name),
        )


def former(conn: psycopg.Connection) -> dict[TableName, tuple[TableName, ...]]:
    """By the tables' names: what they were called before, the latest first."""
    rows = conn.execute(
        "SELECT s.source_schema, s.source_table, c ->> 'before' FROM cdc_migrator.schema_change s, "
        "jsonb_array_elements(s.changes) c WHERE s.settled_at IS NOT NULL "
        "AND c ->> 'kind' = 'table renamed' ORDER BY s.id DESC"
    ).fetchall()
    present: dict[TableName, TableName] = {}
    found: dict[TableName, tuple[TableName, ...]] = {}
    for schema, name, before in rows:
        after = TableName(schema, name)
        now = present.get(after, after)
        was = TableName(*before.split(".", 1))
        present.setdefault(was, now)
        found[now] = (*found.get(now, ()), was)
    return found


def leave(conn: psycopg.Connection, table: TableName) -> None:
    """A table is part of the migration no longer."""
    conn.execute(
        "DELETE FROM cdc_migrator.table_progress WHERE (source_schema, source_table) = (%s, %s)",
        (table.schema, table.name),
    )


def of(conn: psycopg.Connection, oids: Collection[int]) -> dict[int, Described]:
    """What is noted of the tables with these oids of the source."""
    rows = conn.execute(
        "SELECT described FROM cdc_migrator.table_shape WHERE source_oid = ANY(%s)", (list(oids),)
    )
    return {one.oid: one for one in (described.read(document) for (document,) in rows)}


def passed(conn: psycopg.Connection, tokens: Collection[str]) -> set[str]:
    """Those of these markers that the stream is behind."""
    rows = conn.execute(
        "SELECT token FROM cdc_migrator.schema_change "
        "WHERE token = ANY(%s) AND settled_at IS NOT NULL",
        (list(tokens),),
    )
    return {str(token) for (token,) in rows}


def settled(conn: psycopg.Connection) -> frozenset[str]:
    """The tokens of the markers that the stream need not stop at."""
    rows = conn.execute(
        "SELECT token FROM cdc_migrator.schema_change WHERE token IS NOT NULL "
        "AND settled_at > clock_timestamp() - interval '30 days'"
    )
    return frozenset(str(token) for (token,) in rows)


def tell(
    conn: psycopg.Connection,
    table: TableName,
    position: str,
    commit_position: int,
    changes: Sequence[Mapping[str, Any]],
) -> None:
    """Write down what the stream waits for; what it waited for at this table before is over."""
    with conn.transaction():
        conn.execute(
            "DELETE FROM cdc_migrator.schema_change WHERE settled_at IS NULL "
            "AND (source_schema, source_table) = (%s, %s)",
            (table.schema, table.name),
        )
        conn.execute(
            "INSERT INTO cdc_migrator.schema_change (source_schema, source_table, position, "
            "commit_position, changes) VALUES (%s, %s, %s, %s, %s)",
            (table.schema, table.name, position, commit_position, Jsonb(list(changes))),
        )


def settle(
    conn: psycopg.Connection,
    table: TableName,
    position: str,
    commit_position: int,
    tokens: Collection[str],
    changes: Sequence[Mapping[str, Any]],
    former: TableName | None = None,
) -> None:
    """The stream goes on behind these markers; in the caller's transaction.

    Args:
        former: what the table was called in front of them, where it was told under that name.
    """
    for name in {table, former or table}:
        conn.execute(
            "DELETE FROM cdc_migrator.schema_change WHERE settled_at IS NULL "
            "AND (source_schema, source_table) = (%s, %s)",
            (name.schema, name.name),
        )
    journal.write(conn, "schema-change", table=str(table), position=position, changes=list(changes))
    for token in tokens or (None,):
        conn.execute(
            "INSERT INTO cdc_migrator.schema_change (token, source_schema, source_table, position, "
            "commit_position, changes, settled_at) "
            "VALUES (%s, %s, %s, %s, %s, %s, clock_timestamp()) ON CONFLICT (token) DO NOTHING",
            (token, table.schema, table.name, position, commit_position, Jsonb(list(changes))),
        )


def pending(conn: psycopg.Connection) -> list[Open]:
    """What the stream waits for."""
    with conn.cursor(row_factory=class_row(Open)) as cursor:
        return cursor.execute(
            "SELECT source_schema, source_table, position, changes, seen_at "
            "FROM cdc_migrator.schema_change WHERE settled_at IS NULL ORDER BY id"
        ).fetchall()
