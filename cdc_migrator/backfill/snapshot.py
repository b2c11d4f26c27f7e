"""Read under an exported snapshot, and know for certain that it is the right one.

A snapshot's name can come back after the server was restarted, and a table that was truncated or
rewritten is empty under an older snapshot without any error. So each transaction that reads
compares what the snapshot sees (``pg_snapshot``) and the table's file with what was written down.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import describe
from cdc_migrator.databases.postgres import names as quoted
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.described import Described
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.tables import TableName

# No such snapshot; none of this name; its exporting session has just ended.
_GONE = ("22023", "42704", "55000")


class SnapshotLost(Exception):
    """The snapshot cannot be read under any more, for one table or at all; says why."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An exported snapshot: the name to import it by and what it sees (``pg_snapshot``)."""

    name: str
    sees: str


class HeldSnapshot:
    """A snapshot of our own, alive until `close`.

    Attributes:
        snapshot: to be imported by readers.
        until: a log position past every commit that it sees.
    """

    def __init__(self, source_dsn: str, application_name: str) -> None:
        self._conn = connect(
            login(source_dsn, Role.VERIFY),
            application_name=application_name,
            side="source",
            settings={"transaction_timeout": "0"},
        )
        try:
            self._conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            row = self._conn.execute(
                "SELECT pg_export_snapshot(), pg_current_snapshot()::text"
            ).fetchone()
            # Only now: what the snapshot sees has its commit record before this position.
            until = self._conn.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
            assert row is not None
            assert until is not None
        except BaseException:
            self._conn.close()
            raise
        self.snapshot = Snapshot(*row)
        self.until = str(until[0])

    def describe(self, table: TableName) -> Described | None:
        """What a table is in the snapshot; None where it is not there."""
        return describe.by_name(self._conn, [table]).get(table)

    def alive(self) -> bool:
        """Whether the session that holds the snapshot is still there."""
        try:
            self._conn.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True

    def close(self) -> None:
        """Let the snapshot go."""
        self._conn.close()


def enter(conn: psycopg.Connection, snapshot: Snapshot) -> None:
    """Begin a transaction on an autocommit session that sees exactly `snapshot`.

    Raises:
        SnapshotLost: nobody holds the snapshot any more; the transaction is rolled back.
    """
    conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        conn.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot.name))
    except psycopg.Error as exc:
        if exc.sqlstate not in _GONE:
            raise
        conn.execute("ROLLBACK")
        raise SnapshotLost("the session that held the source's snapshot has ended") from exc
    row = conn.execute("SELECT pg_current_snapshot()::text").fetchone()
    if row != (snapshot.sees,):
        conn.execute("ROLLBACK")
        raise SnapshotLost("the name of the source's snapshot belongs to another one now")


def enter_table(
    conn: psycopg.Connection, snapshot: Snapshot, table: TableName, filenode: int
) -> None:
    """Like `enter`, and lock the table against TRUNCATE and rewrites until the transaction ends.

    Raises:
        SnapshotLost: also when the table no longer has the file that it had at the snapshot.
    """
    enter(conn, snapshot)
    name = quoted.table(table)
    try:
        conn.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE").format(name))
        row = conn.execute(
            "SELECT pg_relation_filenode(%s::regclass)::bigint", (name.as_string(conn),)
        ).fetchone()
    except psycopg.errors.UndefinedTable:
        row = None
    if row != (filenode,):
        conn.execute("ROLLBACK")
        raise SnapshotLost("the table was truncated, rewritten or dropped since its snapshot")


def alive(conn: psycopg.Connection, snapshot: Snapshot) -> bool:
    """Whether the snapshot can still be read under."""
    try:
        enter(conn, snapshot)
    except SnapshotLost:
        return False
    conn.execute("ROLLBACK")
    return True


def still(conn: psycopg.Connection, name: str | None, sees: str | None) -> Snapshot | None:
    """The snapshot that was written down, if there is one and it can still be read under."""
    if name is None or sees is None:
        return None
    snapshot = Snapshot(name, sees)
    return snapshot if alive(conn, snapshot) else None
