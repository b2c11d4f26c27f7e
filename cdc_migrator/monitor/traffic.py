"""How much a database does, how fast and how often in vain: what lies between two looks at it.

Read from PostgreSQL's own counters, which know nothing of what an application waits for elsewhere:

* throughput: transactions that ended, a second, ours included;
* error rate: the share of them that was rolled back;
* latency: mean time of execution of a statement, by pg_stat_statements, without ours where our role
  is nobody else's; where that extension is not there, of a whole transaction, ours included.

Counters that were set back, or do not count, give no number, and never 0.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import sql

Kind = Literal["statements", "transactions"]

_ACTIVE_SINCE = 140000  # pg_stat_database.active_time
_DATABASE = """
SELECT xact_commit, xact_rollback, {active}, stats_reset::text, pg_postmaster_start_time()::text
FROM pg_stat_database WHERE datname = current_database()
"""
_EXTENSION = """
SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'pg_stat_statements'
"""
_STATEMENTS = """
SELECT userid, sum(calls)::int8, sum(total_exec_time)::float8 FROM {}(false)
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) GROUP BY userid
"""
# Our sessions are called after us; see each `connect`.
_OURS = """
SELECT (SELECT oid FROM pg_roles WHERE rolname = current_user),
       EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
               AND usename = current_user AND application_name !~ '^cdc(-migrator|m-)')
"""


@dataclass(frozen=True, slots=True)
class Counters:
    """What has been counted since `epoch`, an opaque text. `at`: seconds, monotonic.

    `statements`: calls and milliseconds by role; None without pg_stat_statements. `ours`: our role,
    where nobody else is connected with it.
    """

    at: float
    epoch: str
    commits: int
    rollbacks: int
    active_ms: float | None
    statements: Mapping[int, tuple[int, float]] | None
    ours: int | None


@dataclass(frozen=True, slots=True)
class Traffic:
    """What happened in `seconds`. `calls` took `busy_ms`; they are what `kind` says, and None
    where that is not known."""

    seconds: float
    commits: int
    rollbacks: int
    kind: Kind
    calls: int | None
    busy_ms: float | None

    @property
    def throughput(self) -> float | None:
        """Transactions a second."""
        return (self.commits + self.rollbacks) / self.seconds if self.seconds > 0 else None

    @property
    def error_rate(self) -> float | None:
        """Share of the transactions that was rolled back; None where there was none."""
        whole = self.commits + self.rollbacks
        return self.rollbacks / whole if whole else None

    @property
    def latency_ms(self) -> float | None:
        """Mean time of execution; None where nothing was executed, or nobody knows."""
        return self.busy_ms / self.calls if self.calls and self.busy_ms is not None else None


def read(conn: psycopg.Connection) -> Counters:
    """Look at a database's counters. `conn` is no older in its transaction than this call."""
    active = "active_time" if conn.info.server_version >= _ACTIVE_SINCE else "NULL::float8"
    row = conn.execute(_DATABASE.format(active=active).encode()).fetchone()
    ours = conn.execute(_OURS).fetchone()
    assert row is not None
    assert ours is not None
    commits, rollbacks, active_ms, reset, started = row
    return Counters(
        time.monotonic(),
        f"{started} {reset}",
        commits,
        rollbacks,
        active_ms,
        _statements(conn),
        None if ours[1] else ours[0],
    )


def _statements(conn: psycopg.Connection) -> dict[int, tuple[int, float]] | None:
    there = conn.execute(_EXTENSION).fetchone()
    if there is None:
        return None
    try:
        with conn.transaction():
            rows = conn.execute(
                sql.SQL(_STATEMENTS).format(sql.Identifier(there[0], "pg_stat_statements"))
            ).fetchall()
    except (
        psycopg.errors.ObjectNotInPrerequisiteState,  # made, but not loaded by the server
        psycopg.errors.InsufficientPrivilege,
        psycopg.errors.UndefinedColumn,  # of a server before 13
    ):
        return None
    return {userid: (calls, spent) for userid, calls, spent in rows}


def between(before: Counters, after: Counters) -> Traffic | None:
    """What happened between two looks; None where they do not belong together."""
    commits, rollbacks = after.commits - before.commits, after.rollbacks - before.rollbacks
    if before.epoch != after.epoch or commits < 0 or rollbacks < 0:
        return None
    seconds = after.at - before.at
    if before.statements is None or after.statements is None:
        busy = None
        if before.active_ms is not None and after.active_ms is not None:
            busy = after.active_ms - before.active_ms
        return Traffic(seconds, commits, rollbacks, "transactions", commits + rollbacks, busy)
    calls, spent = 0, 0.0
    for role, (count, milliseconds) in after.statements.items():
        if role == before.ours == after.ours:
            continue
        known = before.statements.get(role, (0, 0.0))
        more, longer = count - known[0], milliseconds - known[1]
        if more < 0 or longer < 0:  # set back, or statements were thrown out for newer ones
            return Traffic(seconds, commits, rollbacks, "statements", None, None)
        calls, spent = calls + more, spent + longer
    return Traffic(seconds, commits, rollbacks, "statements", calls, spent)
