"""Target tables before their rows: nobody else's rows in them, and none of an earlier reading."""

from __future__ import annotations

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import names as quoted
from cdc_migrator.errors import Refused
from cdc_migrator.model.tables import TableName


def require_empty(conn: psycopg.Connection, table: TableName) -> None:
    """See that a table which this migration has not begun to load holds no rows.

    Raises:
        Refused: CDCM-TARGET-NOT-EMPTY.
    """
    query = sql.SQL("SELECT EXISTS (SELECT FROM ONLY {})").format(quoted.table(table))
    if conn.execute(query).fetchone() == (True,):
        raise Refused(
            "CDCM-TARGET-NOT-EMPTY",
            f"the target's table {table} holds rows that this migration has not loaded",
            "Empty or drop it, or use another target, then run the same command again.",
        )


def begin_empty(conn: psycopg.Connection, table: TableName) -> bool:
    """Begin a table's file anew inside the caller's transaction, where that is possible.

    Only then may COPY freeze the rows that it writes. The table is found empty while nobody else
    can write to it, so nobody's rows go.

    Returns:
        False if a foreign key or a missing privilege forbids TRUNCATE, or the table is a
        partitioned one: nothing was done then.

    Raises:
        Refused: CDCM-TARGET-NOT-EMPTY.
    """
    name = quoted.table(table)
    row = conn.execute(
        "SELECT relkind = 'r' AND has_table_privilege(oid, 'TRUNCATE') AND NOT EXISTS ("
        "SELECT FROM pg_constraint WHERE contype = 'f' AND confrelid = c.oid AND conrelid <> c.oid"
        ") FROM pg_class c WHERE oid = to_regclass(%s)",
        (name.as_string(conn),),
    ).fetchone()
    possible = row == (True,)
    if possible:
        conn.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE").format(name))
    require_empty(conn, table)
    if possible:
        # Not in a savepoint: COPY looks for a file that is new in its own (sub)transaction.
        conn.execute(sql.SQL("TRUNCATE ONLY {}").format(name))
    return possible


def empty(conn: psycopg.Connection, table: TableName) -> None:
    """Remove all rows, inside the caller's transaction."""
    name = quoted.table(table)
    try:
        with conn.transaction():
            conn.execute(sql.SQL("TRUNCATE ONLY {}").format(name))
    except psycopg.errors.FeatureNotSupported:
        # A foreign key of another table forbids it, even where no row is referred to.
        conn.execute("SET LOCAL session_replication_role = replica")
        conn.execute(sql.SQL("DELETE FROM ONLY {}").format(name))
