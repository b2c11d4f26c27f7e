"""Create the control schemas and bring them forward; each step runs once, in a transaction."""

from __future__ import annotations

from importlib.resources import files

import psycopg

from cdc_migrator.errors import Refused

VERSION = 6
_LOCK = 0x43444D31  # one migrator of the control schema at a time ("CDM1")


def ensure(conn: psycopg.Connection, side: str) -> None:
    """Create or upgrade ``cdc_migrator`` on this database.

    Args:
        conn: an autocommit connection or one without an open transaction.
        side: ``source`` or ``target``.

    Raises:
        Refused: CDCM-CONTROL-NEWER: a newer release has upgraded the schema,
            or CDCM-CONTROL-SIDE: the schema here belongs to the other side.
    """
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        conn.execute("CREATE SCHEMA IF NOT EXISTS cdc_migrator")
        conn.execute(
            "CREATE TABLE IF NOT EXISTS cdc_migrator.schema_version ("
            "side text NOT NULL, version integer NOT NULL, "
            "at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (side, version))"
        )
        rows = conn.execute("SELECT side, version FROM cdc_migrator.schema_version").fetchall()
        if any(row[0] != side for row in rows):
            raise Refused(
                "CDCM-CONTROL-SIDE",
                f"the control schema of this database is that of a migration's {rows[0][0]}, "
                f"not of a {side}",
                "Use another database, or remove that migration with `cdc-migrator abort` first.",
            )
        current = max((row[1] for row in rows), default=0)
        if current > VERSION:
            raise Refused(
                "CDCM-CONTROL-NEWER",
                f"the control schema has version {current}, this release knows {VERSION}",
                "Use the release of cdc-migrator that wrote it, or a newer one.",
            )
        for version in range(current + 1, VERSION + 1):
            script = files(__package__).joinpath(f"sql/{side}_{version:04}.sql")
            if script.is_file():  # else the version changed the other side only
                conn.execute(script.read_text().encode())
            conn.execute(
                "INSERT INTO cdc_migrator.schema_version (side, version) VALUES (%s, %s)",
                (side, version),
            )


def exists(conn: psycopg.Connection) -> bool:
    """Whether this database has a control schema with its version table."""
    row = conn.execute("SELECT to_regclass('cdc_migrator.schema_version') IS NOT NULL").fetchone()
    return bool(row and row[0])


def has(conn: psycopg.Connection, table: str) -> bool:
    """Whether the control schema here has this table: an earlier release's may not."""
    row = conn.execute("SELECT to_regclass(%s) IS NOT NULL", (f"cdc_migrator.{table}",)).fetchone()
    return row == (True,)


def drop(conn: psycopg.Connection) -> bool:
    """Remove the control schema and all it holds; returns whether there was one."""
    there = conn.execute("SELECT to_regnamespace('cdc_migrator') IS NOT NULL").fetchone()
    conn.execute("DROP SCHEMA IF EXISTS cdc_migrator CASCADE")
    return bool(there and there[0])


def drop_tables(conn: psycopg.Connection) -> int:
    """Remove all tables of the control schema, and leave its functions; how many there were."""
    rows = conn.execute(
        "SELECT format('%I', relname) FROM pg_class WHERE relkind = 'r' "
        "AND relnamespace = to_regnamespace('cdc_migrator')"
    ).fetchall()
    for (table,) in rows:
        conn.execute(f"DROP TABLE IF EXISTS cdc_migrator.{table} CASCADE".encode())
    return len(rows)
