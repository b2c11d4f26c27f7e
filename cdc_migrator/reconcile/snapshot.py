"""Read one table under an exported snapshot, each time in a short transaction of its own.

The table's lock lasts no longer than the statement, so that a TRUNCATE or an ALTER TABLE of the
application waits for one statement at most. Either makes a new file for the table and leaves older
snapshots with nothing, or with something else, in it: so the file as the snapshot sees it is
compared with the file of now, under the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg import errors, sql

from cdc_migrator.databases.postgres.coded import coded
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.alignment import Aligned
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile import hooked
from cdc_migrator.reconcile.pairs import Pair

Row = tuple[Any, ...]
Result = TypeVar("Result")

_LOCK_TIMEOUT = "5s"

# No parallel workers: how much of the servers is used is decided by the number of sessions. The
# planner takes the chunks of a table for as many as its rows, and would sort them.
_SETTINGS = {
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "enable_sort": "off",
    "work_mem": "32MB",
    "lock_timeout": _LOCK_TIMEOUT,
}


class SnapshotLost(Exception):
    """The session that exported the snapshot is gone."""


class TableMoved(Exception):
    """The table was truncated, rewritten, dropped or locked since the snapshot."""


_LOST = (
    errors.InvalidParameterValue,
    errors.UndefinedObject,
    errors.ObjectNotInPrerequisiteState,
)
_MOVED = (errors.UndefinedTable, errors.UndefinedColumn, errors.LockNotAvailable)
_SAME_FILE = sql.SQL("""
SELECT c.relfilenode = coalesce(pg_relation_filenode(c.oid), 0) FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = {} AND c.relname = {}
""")
_BEGIN = sql.SQL("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}")
_READ = sql.SQL("{}; {}; COMMIT")


def same_file(conn: psycopg.Connection, table: TableName) -> bool:
    """Whether the table's file is still the one that the session's snapshot sees.

    The table must be locked, at least by having been read in this transaction.
    """
    return conn.execute(_same_file(table)).fetchone() == (True,)


def _same_file(table: TableName) -> sql.Composed:
    return _SAME_FILE.format(sql.Literal(table.schema), sql.Literal(table.name))


@contextmanager
def reading(source: psycopg.Connection, table: TableName) -> Iterator[None]:
    """Read a table in a transaction that goes on for long, and keep no lock on it afterwards.

    Raises:
        TableMoved: perhaps only at the end: what was read is worthless then.
        MigratorError: the source's other errors. Those of other sessions pass as they are.
    """
    # Rolling back to a savepoint gives up the locks that were taken since.
    with source.transaction(force_rollback=True):
        source.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_TIMEOUT)))
        try:
            yield
            unchanged = same_file(source, table)
        except psycopg.Error as exc:
            if source.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS:
                raise
            if isinstance(exc, _MOVED):
                raise TableMoved(str(table)) from exc
            raise coded(exc, "source", f"reading {table}") from exc
        if not unchanged:
            raise TableMoved(str(table))


@contextmanager
def _joined(conn: psycopg.Connection, snapshot: str, table: TableName) -> Iterator[None]:
    """Read a table in a transaction under this snapshot; it is over afterwards.

    Raises SnapshotLost, TableMoved.
    """
    try:
        try:
            conn.execute(_BEGIN.format(sql.Literal(snapshot)))
        except _LOST as exc:
            raise SnapshotLost from exc
        try:
            yield
        except _MOVED as exc:
            raise TableMoved(str(table)) from exc
    finally:
        if conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            with suppress(psycopg.Error):
                conn.execute("ROLLBACK")


def _under(
    conn: psycopg.Connection, snapshot: str, table: TableName, query: sql.Composed
) -> list[Row]:
    """Two messages for five statements: a round trip is most of what a small table takes."""
    with _joined(conn, snapshot, table):
        answers = conn.execute(_READ.format(query, _same_file(table)))
        rows = answers.fetchall()
        answers.nextset()
        if answers.fetchone() != (True,):
            raise TableMoved(str(table))
        return rows


def _hooked(
    source: psycopg.Connection,
    snapshot: str,
    pair: Pair,
    query: sql.Composed,
    among: sql.Composable,
) -> list[Row]:
    """The same of rows that a hook gives columns."""
    table = pair.relation(False)
    with _joined(source, snapshot, table):
        rows = list(hooked.read(source, pair, query, among))
        if not same_file(source, table):
            raise TableMoved(str(table))
        return rows


class Sides:
    """One session on each side, asked at the same time. A context manager.

    Raises MigratorError when a database does not answer, or reports an error.
    """

    def __init__(self, source_dsn: str, target_dsn: str, called: str) -> None:
        self._ends = (
            ("source", login(source_dsn, Role.VERIFY)),
            ("target", login(target_dsn, Role.VERIFY)),
        )
        self._called = called
        self._open: list[psycopg.Connection] = []
        self._other = ThreadPoolExecutor(1, thread_name_prefix="reconcile-target")

    def __enter__(self) -> Sides:
        try:
            self._open += self.both(self._connect)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _connect(self, target: bool) -> psycopg.Connection:
        side, dsn = self._ends[target]
        return connect(dsn, application_name=self._called, side=side, settings=dict(_SETTINGS))

    def __exit__(self, *_: object) -> None:
        self._other.shutdown()
        for conn in self._open:
            conn.close()

    def cancel(self) -> None:
        """Break off what is being read; by another thread than the one that reads."""
        for conn in list(self._open):
            with suppress(psycopg.Error):
                conn.cancel_safe(timeout=1.0)

    @property
    def source(self) -> psycopg.Connection:
        return self._open[0]

    @property
    def target(self) -> psycopg.Connection:
        return self._open[1]

    def read(
        self,
        pair: Pair,
        aligned: Aligned,
        query: sql.Composed,
        target: bool,
        among: sql.Composable | None = None,
    ) -> list[Row]:
        """The rows of a query over this table on one side, at the point.

        Args:
            among: as in `hooked.read`; None: the query is not over `pair.rows`, or of the target.

        Raises:
            SnapshotLost, TableMoved: it must be tried again at another point.
        """
        if pair.of_nobody and not target:
            return []
        conn = self._open[target]
        snapshot = aligned.target_snapshot if target else aligned.source_snapshot
        try:
            if pair.hooked and not target and among is not None:
                return _hooked(conn, snapshot, pair, query, among)
            return _under(conn, snapshot, pair.relation(target), query)
        except psycopg.Error as exc:
            raise coded(
                exc, self._ends[target][0], f"comparing the table {pair.on(target).name}"
            ) from exc

    def both(self, work: Callable[[bool], Result]) -> tuple[Result, Result]:
        """`work` with False for the source and True for the target, at the same time."""
        there = self._other.submit(work, True)
        try:
            here = work(False)
        finally:
            # Nobody may use the session while this is still reading.
            there.exception()
        return here, there.result()
