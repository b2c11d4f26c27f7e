"""What a migration keeps on the source: its row, its publication, its replication slot.

The publication comes before the slot: a slot that was made first decodes from a point at which
there was no publication, and PostgreSQL only warns that it skipped it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import names as quoted
from cdc_migrator.errors import Failed, Refused
from cdc_migrator.model.naming import Names
from cdc_migrator.model.tables import TableName

MARKER = TableName("cdc_migrator", "marker")
HEARTBEAT = TableName("cdc_migrator", "heartbeat")


@dataclass(frozen=True, slots=True)
class Slot:
    """One row of ``pg_replication_slots``; `retained_bytes` of log are kept back for it."""

    active: bool
    confirmed_flush: str | None
    restart_lsn: str | None
    wal_status: str | None
    retained_bytes: int | None
    streaming: bool


def register(conn: psycopg.Connection, names: Names, owner: str) -> None:
    """Make the migration's row and its heartbeat row on the source.

    Raises:
        Refused: CDCM-SOURCE-NAME-TAKEN: a migration of this name with another target captures
            from this source.
    """
    with conn.transaction():
        conn.execute(
            "INSERT INTO cdc_migrator.captured (name, generation, owner) VALUES (%s, %s, %s) "
            "ON CONFLICT DO NOTHING",
            (names.migration, names.generation, owner),
        )
        row = conn.execute(
            "SELECT owner, generation FROM cdc_migrator.captured WHERE name = %s",
            (names.migration,),
        ).fetchone()
        assert row is not None
        if row != (owner, names.generation):
            raise _taken(names)
        conn.execute(
            "INSERT INTO cdc_migrator.heartbeat (migration) VALUES (%s) ON CONFLICT DO NOTHING",
            (names.migration,),
        )


def require_ours(conn: psycopg.Connection, names: Names, word: str) -> None:
    """See that the source does not know another migration of this name.

    Raises Refused: CDCM-SOURCE-NAME-TAKEN.
    """
    if owner(conn, names.migration) not in (None, word):
        raise _taken(names)


def _taken(names: Names) -> Refused:
    return Refused(
        "CDCM-SOURCE-NAME-TAKEN",
        f"this source is captured by another migration called {names.migration!r}",
        "Choose another name, or remove that migration with `cdc-migrator abort`.",
    )


def move_on(conn: psycopg.Connection, names: Names, word: str) -> None:
    """Let the migration's row on the source follow into a newer generation."""
    conn.execute(
        "UPDATE cdc_migrator.captured SET generation = %s "
        "WHERE name = %s AND owner = %s AND generation < %s",
        (names.generation, names.migration, word, names.generation),
    )


def owner(conn: psycopg.Connection, migration: str) -> str | None:
    """The word by which the migration's target knows its row on the source, or None."""
    row = conn.execute(
        "SELECT owner FROM cdc_migrator.captured WHERE name = %s", (migration,)
    ).fetchone()
    return str(row[0]) if row else None


def filenodes(conn: psycopg.Connection) -> dict[TableName, int]:
    """The file of each ordinary table now; TRUNCATE and rewrites give a table a new one."""
    rows = conn.execute(
        "SELECT n.nspname, c.relname, pg_relation_filenode(c.oid)::bigint FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r'"
    )
    return {TableName(schema, name): node for schema, name, node in rows}


def published(conn: psycopg.Connection, publication: str) -> set[TableName] | None:
    """The tables that a publication names, or None if there is no such publication."""
    if not conn.execute(
        "SELECT 1 FROM pg_publication WHERE pubname = %s", (publication,)
    ).fetchone():
        return None
    rows = conn.execute(
        "SELECT n.nspname, c.relname FROM pg_publication p "
        "JOIN pg_publication_rel r ON r.prpubid = p.oid JOIN pg_class c ON c.oid = r.prrelid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = %s",
        (publication,),
    )
    return {TableName(schema, name) for schema, name in rows}


def publish(
    conn: psycopg.Connection, publication: str, tables: Mapping[TableName, Sequence[str] | None]
) -> None:
    """Make the publication of these tables, in place of any other of its name.

    Args:
        tables: with the columns that are sent; None sends all.
    """
    with conn.transaction():
        conn.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(publication)))
        conn.execute(
            sql.SQL("CREATE PUBLICATION {} FOR TABLE {} WITH ({})").format(
                sql.Identifier(publication), _relations(tables), _OPERATIONS
            )
        )


def publish_more(
    conn: psycopg.Connection, publication: str, tables: Mapping[TableName, Sequence[str] | None]
) -> None:
    """Take tables into the publication; arguments as `publish`."""
    conn.execute(
        sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(
            sql.Identifier(publication), _relations(tables)
        )
    )


def publish_anew(conn: psycopg.Connection, publication: str) -> None:
    """Have every session that decodes look anew at what the publication names.

    Setting what is set already changes nothing, but PostgreSQL writes the row again and sends an
    invalidation for each of its tables; SET TABLE with the same list would send none.
    """
    conn.execute(
        sql.SQL("ALTER PUBLICATION {} SET ({})").format(sql.Identifier(publication), _OPERATIONS)
    )


_OPERATIONS = sql.SQL("publish = 'insert, update, delete, truncate'")


def _relations(tables: Mapping[TableName, Sequence[str] | None]) -> sql.Composed:
    relations = []
    for table, columns in sorted(tables.items(), key=lambda item: item[0]):
        relation = sql.SQL("ONLY {}").format(quoted.table(table))
        if columns is not None:
            relation += sql.SQL(" ({})").format(quoted.columns(columns))
        relations.append(relation)
    return sql.SQL(", ").join(relations)


def unpublish(conn: psycopg.Connection, publication: str) -> bool:
    """Remove a publication; returns whether there was one."""
    there = published(conn, publication) is not None
    conn.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(publication)))
    return there


def read(conn: psycopg.Connection, slot: str) -> Slot | None:
    """The slot as it is, or None if there is no such slot."""
    row = conn.execute(
        "SELECT s.active, s.confirmed_flush_lsn::text, s.restart_lsn::text, s.wal_status, "
        "CASE WHEN NOT pg_is_in_recovery() THEN "
        "pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint END, "
        "coalesce(r.state = 'streaming', false) FROM pg_replication_slots s "
        "LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE s.slot_name = %s",
        (slot,),
    ).fetchone()
    return Slot(*row) if row else None


def drop(conn: psycopg.Connection, slot: str, patience: float = 30.0) -> bool:
    """Remove a slot, ending the session that uses it; returns whether there was one.

    A connector that was told to stop keeps its session for a moment, and one that lost its
    connection comes back: so end the session, try, and do both again for `patience` seconds.

    Raises:
        Failed: CDCM-SLOT-BUSY: something takes the slot again each time.
    """
    there = False
    deadline = time.monotonic() + patience
    while True:
        row = conn.execute(
            "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", (slot,)
        ).fetchone()
        if row is None:
            return there
        there = True
        if row[0] is not None:
            conn.execute("SELECT pg_terminate_backend(%s, 5000)", (row[0],))
        try:
            conn.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
            return True
        except psycopg.errors.UndefinedObject:
            return True
        except psycopg.errors.ObjectInUse:
            if time.monotonic() > deadline:
                raise Failed(
                    "CDCM-SLOT-BUSY",
                    f"the replication slot {slot} is taken again as soon as its session ends",
                    "Stop the connector or program that uses it, then run the same command again.",
                ) from None
            time.sleep(0.2)


def ours(conn: psycopg.Connection, migration: str) -> list[str]:
    """The slots of this database that a migration has made, in any of its generations."""
    rows = conn.execute(
        "SELECT slot_name FROM pg_replication_slots WHERE slot_name ~ %s "
        "AND database = current_database() ORDER BY 1",
        (f"^cdcm_{migration}_[0-9]+$",),
    )
    return [str(row[0]) for row in rows]


def unregister(conn: psycopg.Connection, migration: str) -> bool:
    """Remove a migration's rows from the source; True if no other migration is left there."""
    with conn.transaction():
        for statement in (
            "DELETE FROM cdc_migrator.marker WHERE migration = %s",
            "DELETE FROM cdc_migrator.heartbeat WHERE migration = %s",
            "DELETE FROM cdc_migrator.captured WHERE name = %s",
        ):
            conn.execute(statement, (migration,))
        others = conn.execute("SELECT count(*) FROM cdc_migrator.captured").fetchone()
    return others == (0,)


def end_sessions(
    conn: psycopg.Connection, migration: str, spared: psycopg.Connection | None = None
) -> int:
    """End a migration's other sessions on this database; returns how many there were.

    All sessions of a migration are called ``cdcm-<name>-<what>``.

    Args:
        spared: the caller's other session, which may be on the same database.
    """
    row = conn.execute(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
        "WHERE starts_with(application_name, %s) AND datname = current_database() "
        "AND pid <> pg_backend_pid() "
        "AND (pid, application_name) <> (%s, current_setting('application_name'))",
        (f"cdcm-{migration}-", spared.info.backend_pid if spared is not None else 0),
    ).fetchone()
    assert row is not None
    return int(row[0])
