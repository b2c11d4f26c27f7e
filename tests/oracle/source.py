"""Runs a workload on the source as an application would: savepoints, rollbacks, two at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

import psycopg

from tests.oracle.workload import Transaction, Workload

# What an application meets and survives; anything else is a mistake in the workload.
_SURVIVED = (
    psycopg.errors.IntegrityError,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.ObjectInUse,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.FeatureNotSupported,  # TRUNCATE of a table that a foreign key refers to
)
_SETTINGS = "SET lock_timeout = '25ms'; SET client_min_messages = error"


@dataclass
class Ran:
    """What a workload came to. `marker` is the transaction id of its last transaction."""

    transactions: int = 0
    statements: int = 0
    refused: int = 0
    rolled_back: int = 0
    marker: int = 0


class Application:
    """Two sessions on the source; nobody else writes to the tables."""

    def __init__(self, dsn: str) -> None:
        self._sessions = [psycopg.connect(dsn, autocommit=True) for _ in range(2)]
        for session in self._sessions:
            session.execute(_SETTINGS)

    def close(self) -> None:
        for session in self._sessions:
            session.close()

    def run(self, workload: Workload) -> Ran:
        """Everything that the workload says, and then the marker: `shop.done` names it."""
        first, second = self._sessions
        ran = Ran()
        with first.transaction():
            # Only a vacuum can be in the way, and that makes room.
            first.execute("SET LOCAL lock_timeout = '30s'")
            for statement in workload.beginning:
                first.execute(statement)
        ran.transactions += 1
        for pair in workload.pairs:
            if len(pair) == 1:
                for _ in self._steps(first, pair[0], ran):
                    pass
            else:
                # Their statements alternate; whichever has fewer of them commits first.
                lanes = (self._steps(s, t, ran) for s, t in zip((first, second), pair, strict=True))
                for _ in zip_longest(*lanes):
                    pass
        with first.transaction():
            # The log goes out once it is on disk; the last commit brings all of it there.
            first.execute("SET LOCAL synchronous_commit = on")
            first.execute("DELETE FROM shop.done")
            first.execute("INSERT INTO shop.done VALUES (%s)", (workload.seed,))
            row = first.execute("SELECT pg_current_xact_id()::text::bigint & 4294967295").fetchone()
            assert row is not None
            ran.marker = int(row[0])
        return ran

    def _steps(
        self, session: psycopg.Connection, transaction: Transaction, ran: Ran
    ) -> Iterator[None]:
        session.execute("BEGIN")
        for statement, undone in transaction.statements:
            end = "ROLLBACK TO" if undone else "RELEASE"
            ran.statements += 1
            try:
                session.execute(f"SAVEPOINT step; {statement}; {end} step")
            except _SURVIVED:
                ran.refused += 1
                session.execute("ROLLBACK TO step")
            yield
        try:
            session.execute("COMMIT" if transaction.commits else "ROLLBACK")
        except _SURVIVED:
            # A deferred constraint: the commit itself is refused, or waits for the other session.
            ran.rolled_back += 1
        else:
            ran.transactions += transaction.commits
            ran.rolled_back += not transaction.commits
