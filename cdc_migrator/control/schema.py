"""Create the control schemas and bring them forward; each step runs once, in a transaction.

A database has the part of a source, that of a target, or both, where there is a way back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files

import psycopg
from psycopg import sql

from cdc_migrator.control import access
from cdc_migrator.errors import Refused
from cdc_migrator.model.logins import Role
from cdc_migrator.model.naming import CONTROL_SCHEMA

VERSION = 13
_SOURCES = ("captured", "marker", "side", "heartbeat", "cutover_copy")
_SHARED = ("schema_version", "route")


def ensure(
    conn: psycopg.Connection,
    side: str,
    beside: bool = False,
    named: Mapping[Role, str] | None = None,
) -> None:
    """Create or upgrade one side's part of ``cdc_migrator`` on this database.

    Where it is up to date already, that is looked at, and no right but to look is needed.

    Args:
        conn: an autocommit connection or one without an open transaction.
        side: ``source`` or ``target``.
        beside: make it also where the other side's part is: the way back is wanted.
        named: roles with a login of their own here, which are given what they need (`access`);
            only to be named by the owner.

    Raises:
        Refused: CDCM-CONTROL-NEWER: a newer release has upgraded the schema,
            or CDCM-CONTROL-SIDE: the schema here belongs to the other side.
    """
    with conn.transaction():  # at once: others look as soon as anything is there
        if not _current(conn, side):
            _make(conn, side, beside)
        if named:
            access.give(conn, named)


def _current(conn: psycopg.Connection, side: str) -> bool:
    if not has(conn, "schema_version"):
        return False
    row = conn.execute(
        "SELECT max(version) FROM cdc_migrator.schema_version WHERE side = %s", (side,)
    ).fetchone()
    return row == (VERSION,)


def _make(conn: psycopg.Connection, side: str, beside: bool) -> None:
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (access.LOCK,))
        conn.execute("CREATE SCHEMA IF NOT EXISTS cdc_migrator")
        conn.execute(
            "CREATE TABLE IF NOT EXISTS cdc_migrator.schema_version ("
            "side text NOT NULL, version integer NOT NULL, "
            "at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (side, version))"
        )
        rows = conn.execute("SELECT side, version FROM cdc_migrator.schema_version").fetchall()
        if rows and not beside and all(row[0] != side for row in rows):
            raise Refused(
                "CDCM-CONTROL-SIDE",
                f"the control schema of this database is that of a migration's {rows[0][0]}, "
                f"not of a {side}",
                "Use another database, or remove that migration with `cdc-migrator abort` first.",
            )
        current = max((row[1] for row in rows if row[0] == side), default=0)
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


def exists(conn: psycopg.Connection, side: str) -> bool:
    """Whether this database has this side's part of the control schema."""
    return side in sides(conn)


def sides(conn: psycopg.Connection) -> set[str]:
    """Whose parts of the control schema this database has."""
    if not has(conn, "schema_version"):
        return set()
    return {
        str(side)
        for (side,) in conn.execute("SELECT DISTINCT side FROM cdc_migrator.schema_version")
    }


def has(conn: psycopg.Connection, table: str) -> bool:
    """Whether the control schema here has this table: an earlier release's may not."""
    row = conn.execute("SELECT to_regclass(%s) IS NOT NULL", (f"cdc_migrator.{table}",)).fetchone()
    return row == (True,)


def drop(conn: psycopg.Connection, side: str) -> bool:
    """Remove one side's part with all it holds, and the schema where it was the last one.

    Returns whether there was anything.
    """
    there = sides(conn)
    if there - {side}:
        with conn.transaction():
            _drop(conn, [name for name in _tables(conn) if _of_source(name) == (side == "source")])
            conn.execute("DELETE FROM cdc_migrator.schema_version WHERE side = %s", (side,))
        return side in there
    found = conn.execute("SELECT to_regnamespace('cdc_migrator') IS NOT NULL").fetchone()
    conn.execute("DROP SCHEMA IF EXISTS cdc_migrator CASCADE")
    return bool(found and found[0])


def drop_tables(conn: psycopg.Connection) -> int:
    """Remove all tables of the control schema, and leave its functions; how many there were."""
    with conn.transaction():
        return _drop(conn, [*_tables(conn), *_SHARED])


def _of_source(table: str) -> bool:
    return table in _SOURCES or table.startswith("side_")  # the side tables themselves


def _tables(conn: psycopg.Connection) -> list[str]:
    rows = conn.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'r' "
        "AND relnamespace = to_regnamespace('cdc_migrator') AND relname <> ALL (%s)",
        (list(_SHARED),),
    )
    return [str(name) for (name,) in rows]


def _drop(conn: psycopg.Connection, tables: Sequence[str]) -> int:
    for table in tables:
        conn.execute(
            sql.SQL("DROP TABLE IF EXISTS {} CASCADE").format(sql.Identifier(CONTROL_SCHEMA, table))
        )
    return len(tables)
