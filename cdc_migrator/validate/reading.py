"""A session on each side that can only read, under snapshots of one point or plain ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import TypeVar

import psycopg
from psycopg import errors, sql

from cdc_migrator.databases.postgres.coded import coded, speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Failed
from cdc_migrator.model.logins import Role, login
from cdc_migrator.validate.results import Answer

# A cursor is planned for the first rows unless it is said that all of them are wanted. No parallel
# workers: how much of the servers is used is decided by the number of sessions.
_SETTINGS = {
    "cursor_tuple_fraction": "1",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "work_mem": "32MB",
    "lock_timeout": "5s",
}
_LOST = (
    errors.InvalidParameterValue,
    errors.UndefinedObject,
    errors.ObjectNotInPrerequisiteState,
)
_NUMBERS = frozenset(
    {20, 21, 23, 26, 700, 701, 1700}
)  # object ids of PostgreSQL's types of numbers

Result = TypeVar("Result")


class SnapshotLost(Exception):
    """The session that exported the snapshot is gone."""


class Reader:
    """A session of one side. A context manager."""

    def __init__(self, side: str, dsn: str, called: str) -> None:
        self._side = side
        self._conn = connect(
            login(dsn, Role.VERIFY),
            application_name=called,
            side=side,
            read_only=True,
            settings=dict(_SETTINGS),
        )

    def close(self) -> None:
        with suppress(psycopg.Error):
            self._conn.close()

    def cancel(self) -> None:
        """Break off what is being read; by another thread than the one that reads."""
        with suppress(psycopg.Error):
            self._conn.cancel_safe(timeout=1.0)

    @contextmanager
    def under(self, snapshot: str | None, seconds: float) -> Iterator[None]:
        """Ask within, under this snapshot or a new one; each statement at most so many seconds.

        Raises SnapshotLost, MigratorError.
        """
        conn = self._conn
        with speaking(self._side, "checking rules"):
            conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                if snapshot is not None:
                    conn.execute(
                        sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot))
                    )
                limit = sql.Literal(f"{max(seconds * 1000, 1):.0f}")
                conn.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(limit))
            except _LOST as exc:
                self._end()
                raise SnapshotLost from exc
        try:
            yield
        finally:
            self._end()

    def _end(self) -> None:
        with suppress(psycopg.Error):
            self._conn.execute("ROLLBACK")

    def ask(self, statement: sql.Composable, most: int) -> Answer:
        """What one statement returns, `most` rows of it.

        The statement may hold the user's SQL. As a cursor's it can only select, and in this form of
        the protocol it is one: a second one could end the transaction that only reads.

        Raises MigratorError: what went wrong, without a value of a row.
        """
        conn = self._conn
        try:
            with conn.transaction():  # a savepoint: the next statement can be asked all the same
                conn.execute(
                    sql.SQL("DECLARE cdcm NO SCROLL CURSOR FOR {}").format(statement), binary=True
                )
                cursor = conn.execute(sql.SQL("FETCH {} FROM cdcm").format(sql.Literal(most + 1)))
                answer = _texts(cursor, most)
                conn.execute("CLOSE cdcm")
                return answer
        except errors.QueryCanceled as exc:
            raise Failed(
                "CDCM-VALIDATE-TIMEOUT",
                f"the {self._side} did not answer within the rule's time limit",
                "Raise the rule's timeout, narrow it with `where`, or add an index that serves it.",
            ) from exc
        except psycopg.Error as exc:
            raise coded(exc, self._side, "checking a rule") from exc


def _texts(cursor: psycopg.Cursor[tuple[object, ...]], most: int) -> Answer:
    """As the server writes them: nobody here interprets a value."""
    result = cursor.pgresult
    assert result is not None
    names = tuple((result.fname(place) or b"").decode() for place in range(result.nfields))
    numeric = tuple(result.ftype(place) in _NUMBERS for place in range(result.nfields))
    rows = [
        tuple(
            value.decode() if (value := result.get_value(row, place)) is not None else None
            for place in range(result.nfields)
        )
        for row in range(min(result.ntuples, most))
    ]
    return Answer(names, numeric, rows, result.ntuples > most)


class Readers:
    """A session of either side, asked at the same time. A context manager."""

    def __init__(self, source_dsn: str, target_dsn: str, called: str) -> None:
        self._ends = (("source", source_dsn), ("target", target_dsn))
        self._called = called
        self._open: list[Reader] = []
        self._other = ThreadPoolExecutor(1, thread_name_prefix="validate-target")

    def __enter__(self) -> Readers:
        try:
            for side, dsn in self._ends:
                self._open.append(Reader(side, dsn, self._called))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._other.shutdown()
        for reader in self._open:
            reader.close()

    def cancel(self) -> None:
        """Break off what is being read; by another thread than the one that reads."""
        for reader in self._open:
            reader.cancel()

    @contextmanager
    def under(self, snapshots: tuple[str, str] | None, seconds: float) -> Iterator[None]:
        """As `Reader.under`, on both sides."""
        with ExitStack() as stack:
            for reader, snapshot in zip(self._open, snapshots or (None, None), strict=True):
                stack.enter_context(reader.under(snapshot, seconds))
            yield

    def ask(self, target: bool, statement: sql.Composable, most: int = 1) -> Answer:
        """As `Reader.ask`, on one side."""
        return self._open[target].ask(statement, most)

    def both(self, work: Callable[[bool], Result]) -> tuple[Result, Result]:
        """`work` with False for the source and True for the target, at the same time."""
        there = self._other.submit(work, True)
        try:
            here = work(False)
        finally:
            # Nobody may use the session while this is still reading.
            there.exception()
        return here, there.result()
