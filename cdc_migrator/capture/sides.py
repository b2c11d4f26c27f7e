"""Make and remove the side tables of a migration, with their triggers, on the source.

The application writes to these tables all the while: a trigger is made in moments (`briefly`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import names as quoted
from cdc_migrator.databases.postgres import side
from cdc_migrator.databases.postgres.brief import briefly
from cdc_migrator.databases.postgres.side import Side
from cdc_migrator.errors import Failed
from cdc_migrator.model.naming import CONTROL_SCHEMA
from cdc_migrator.model.tables import TableName

_LOCK_MS = 200
_PATIENCE = 120.0


def install(conn: psycopg.Connection, migration: str, sides: Iterable[Side]) -> None:
    """Make these side tables anew, and remove any other of this migration.

    Call it before the slot is made: from its consistent point on every writer has met the
    trigger, because making one waits for those that had not.

    Raises:
        Failed: CDCM-SIDE-LOCKED: a table is never free of long transactions for a moment.
    """
    remove(conn, migration)
    for one in sides:
        _briefly_locked(conn, one.of.name, _making(one, migration))


def add(conn: psycopg.Connection, migration: str, sides: Iterable[Side]) -> None:
    """Make those of these side tables that are not there, or do not work; keep all others.

    Call it before they are published. Raises: as `install`.
    """
    off = switched_off(conn, migration)
    there = names(conn, migration)
    for one in sides:
        if one.name not in there or one.of.name in off:
            statements = [*_removing(one.name.name), *_making(one, migration)]
            _briefly_locked(conn, one.of.name, statements)


def names(conn: psycopg.Connection, migration: str) -> list[TableName]:
    """This migration's side tables."""
    rows = conn.execute(
        "SELECT name FROM cdc_migrator.side WHERE migration = %s ORDER BY 1", (migration,)
    )
    return [TableName(CONTROL_SCHEMA, name) for (name,) in rows]


def _making(one: Side, migration: str) -> list[sql.Composed]:
    return [
        sql.SQL(
            "INSERT INTO cdc_migrator.side (name, migration, source_schema, source_table) "
            "VALUES ({}, {}, {}, {})"
        ).format(one.name.name, migration, one.of.name.schema, one.of.name.name),
        *side.create(one),
    ]


def _removing(name: str) -> list[sql.Composed]:
    made = quoted.table(TableName(CONTROL_SCHEMA, name))
    return [
        # With the triggers that call it.
        sql.SQL("DROP FUNCTION IF EXISTS {}() CASCADE").format(made),
        sql.SQL("DROP TABLE IF EXISTS {}").format(made),
        sql.SQL("DELETE FROM cdc_migrator.side WHERE name = {}").format(name),
    ]


def remove(conn: psycopg.Connection, migration: str) -> list[TableName]:
    """Remove this migration's side tables and triggers; the tables that had one."""
    rows = conn.execute(
        "SELECT name, source_schema, source_table FROM cdc_migrator.side WHERE migration = %s "
        "ORDER BY 2, 3",
        (migration,),
    ).fetchall()
    removed = []
    for name, schema, table in rows:
        of = TableName(schema, table)
        _briefly_locked(conn, of, _removing(name))
        removed.append(of)
    return removed


def switched_off(conn: psycopg.Connection, migration: str) -> list[TableName]:
    """Tables whose trigger is gone, or no longer fires always.

    Switching triggers off and on again (``ALTER TABLE … ENABLE TRIGGER ALL``) leaves one that
    fires less often, so that this shows as well.
    """
    rows = conn.execute(
        "SELECT source_schema, source_table FROM cdc_migrator.side s WHERE migration = %s "
        "AND NOT EXISTS (SELECT FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE tgname = 'cdc_migrator_' || name "
        "AND tgenabled = 'A' AND nspname = source_schema AND relname = source_table) "
        "ORDER BY 1, 2",
        (migration,),
    ).fetchall()
    return [TableName(*row) for row in rows]


def _briefly_locked(
    conn: psycopg.Connection, table: TableName, statements: Sequence[sql.Composed]
) -> None:
    if not briefly(conn, statements, _LOCK_MS, _PATIENCE):
        raise Failed(
            "CDCM-SIDE-LOCKED",
            f"a trigger on {table} needs it free of open transactions for a moment, "
            f"which it was not within {_PATIENCE:.0f} s",
            "End the long transaction that uses it (pg_stat_activity on the source), "
            "then run the same command again.",
        )
