"""How the sampler asks a database: one read-only session a side, and no question too often."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Failed
from cdc_migrator.model.logins import Role, login

CONNECT_SECONDS = 3
STATEMENT_MILLISECONDS = 4000

T = TypeVar("T")


class Session:
    """One read-only session that is opened when needed and again after it broke."""

    def __init__(self, side: str, dsn: Callable[[], str], role: Role = Role.MONITOR) -> None:
        self._side = side
        self._dsn = dsn
        self._role = role
        self._conn: psycopg.Connection | None = None

    def ask(self, question: Callable[[psycopg.Connection], T]) -> T:
        """Ask under one snapshot. Raises MigratorError."""
        fresh = self._conn is None
        try:
            return self._ask(question)
        except psycopg.OperationalError:
            self.close()
            # A session that broke while it lay idle says nothing about the server now.
            if fresh:
                raise self._failed("the session broke") from None
        except psycopg.Error as error:
            self.close()
            raise self._failed(f"SQLSTATE {error.sqlstate}") from None
        try:
            return self._ask(question)
        except psycopg.Error as error:
            self.close()
            raise self._failed(f"SQLSTATE {error.sqlstate}") from None

    def _ask(self, question: Callable[[psycopg.Connection], T]) -> T:
        if self._conn is None:
            given = login(self._dsn(), self._role)
            if "connect_timeout" not in conninfo_to_dict(given):
                given = make_conninfo(given, connect_timeout=CONNECT_SECONDS)
            self._conn = connect(
                given,
                application_name="cdc-migrator monitor",
                side=self._side,
                read_only=True,
                settings={"statement_timeout": str(STATEMENT_MILLISECONDS), "lock_timeout": "2s"},
            )
            self._conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with self._conn.transaction():
            return question(self._conn)

    def _failed(self, why: str) -> Failed:
        return Failed(
            "CDCM-MONITOR-QUERY",
            f"the {self._side} did not answer a question about the migration ({why})",
            "Look at the server's log; the next measurement tries again.",
        )

    def close(self) -> None:
        if self._conn is not None:
            with suppress(psycopg.Error):
                self._conn.close()
            self._conn = None


class Paced(Generic[T]):
    """Asks at most every `seconds`, and for no more than a twentieth of the time; between, the
    last answer holds. One who asks once always asks anew."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._answer: T | None = None
        self._next: float | None = None

    def get(self, ask: Callable[[], T]) -> T | None:
        """The present answer. Raises what `ask` raises; then the next call asks again."""
        began = self._clock()
        if self._next is None or began >= self._next:
            self._next = None
            self._answer = ask()
            ended = self._clock()
            self._next = ended + max(self._seconds, 20 * (ended - began))
        return self._answer


def unless_slow(conn: psycopg.Connection, question: Callable[[], T]) -> T | None:
    """The answer; None where the server gave it up at its time limit. The session goes on."""
    try:
        with conn.transaction():
            return question()
    except psycopg.errors.QueryCanceled:
        return None


def clock(conn: psycopg.Connection) -> tuple[datetime, float]:
    """The server's clock, and the seconds by which it is ahead of this machine's."""
    started, wall = time.monotonic(), datetime.now(UTC)
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    now: datetime = row[0]
    middle = wall + timedelta(seconds=(time.monotonic() - started) / 2)
    return now, (now - middle).total_seconds()
