"""Target tables before their rows: nobody else's rows in them, and none of an earlier reading.

Where several tables of the source go to one, each sees to its own rows (`Route.belongs`).
"""

from __future__ import annotations

from collections.abc import Iterable

import psycopg
from psycopg import sql

from cdc_migrator.control import deferring, load, unclaimed
from cdc_migrator.databases.postgres import names as quoted
from cdc_migrator.databases.postgres.mapped import expression
from cdc_migrator.errors import Refused
from cdc_migrator.model.tables import TableName


def require_empty(conn: psycopg.Connection, table: TableName, belongs: str | None = None) -> None:
    """See that a table which this migration has not begun to load holds no rows.

    Args:
        belongs: SQL over its rows; only those of which it is true count.

    Raises:
        Refused: CDCM-TARGET-NOT-EMPTY.
    """
    if _holds(conn, table, belongs):
        raise Refused(
            "CDCM-TARGET-NOT-EMPTY",
            f"the target's table {table} holds rows that this migration has not loaded",
            "Empty or drop it, or use another target, then run the same command again.",
        )


def require_claimed(conn: psycopg.Connection, tables: Iterable[TableName]) -> None:
    """See that these tables hold no row that no table of the source claims, where several of those
    come to one and the mapping does not say that others' rows may be there.

    Raises:
        Refused: CDCM-TARGET-NOT-EMPTY.
    """
    wanted = set(tables)
    if not wanted:
        return
    for one in unclaimed.read(conn, load.read_tables(conn)):
        if one.target in wanted and _holds(conn, one.target, one.belongs):
            raise Refused(
                "CDCM-TARGET-NOT-EMPTY",
                f"the target's table {one.target}, to which several tables go, holds rows that "
                "none of them claims",
                "Remove them; or, if they are meant to be there, say `others: true` in the entries "
                "of `mapping` that go there. Then run the same command again.",
            )


def begin_empty(conn: psycopg.Connection, table: TableName, belongs: str | None = None) -> bool:
    """Begin a table's file anew inside the caller's transaction, where that is possible.

    Only then may COPY freeze the rows that it writes. The table is found empty while nobody else
    can write to it, so nobody's rows go.

    Returns:
        False if a foreign key or a missing privilege forbids TRUNCATE, others write to the table
        as well, or it is a partitioned one: nothing was done then.

    Raises:
        Refused: CDCM-TARGET-NOT-EMPTY.
    """
    if belongs is not None:
        require_empty(conn, table, belongs)
        return False
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


def empty(conn: psycopg.Connection, table: TableName, belongs: str | None = None) -> None:
    """Remove all rows, or those of which `belongs` is true, inside the caller's transaction."""
    name = _alone(conn, table)
    if belongs is not None:
        _delete(conn, name, belongs)
        return
    try:
        with conn.transaction():
            conn.execute(sql.SQL("TRUNCATE {}").format(name))
    except psycopg.errors.FeatureNotSupported:
        # A foreign key of another table forbids it, even where no row is referred to.
        _delete(conn, name, None)


def _delete(conn: psycopg.Connection, name: sql.Composable, belongs: str | None) -> None:
    if not deferring.defers(conn):
        conn.execute("SET LOCAL session_replication_role = replica")
    conn.execute(sql.SQL("DELETE FROM {}{}").format(name, _those(belongs)))


def _alone(conn: psycopg.Connection, table: TableName) -> sql.Composable:
    row = conn.execute(
        "SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(%s)",
        (quoted.table(table).as_string(conn),),
    ).fetchone()
    return quoted.alone(table, row == (True,))


def _holds(conn: psycopg.Connection, table: TableName, belongs: str | None) -> bool:
    query = sql.SQL("SELECT EXISTS (SELECT FROM {}{})").format(_alone(conn, table), _those(belongs))
    return conn.execute(query).fetchone() == (True,)


def _those(belongs: str | None) -> sql.Composable:
    return sql.SQL("") if belongs is None else sql.SQL(" WHERE {}").format(expression(belongs))
