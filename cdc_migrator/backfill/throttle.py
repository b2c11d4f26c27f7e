"""Hold the load back: to a rate, and while the source has enough to do without it.

One `Throttle` for all workers. A rate is kept by debt: what has passed is paid for by waiting, so
that a large block is not refused but followed by a pause. The limits of the source are looked at by
a thread of its own; while one is passed nobody reads on, and the progress says why.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg

from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import MigratorError, Refused
from cdc_migrator.model.logins import Role, login

_LOOK_SECONDS = 1.0
_LONGEST_WAIT = 0.5


@dataclass(frozen=True, slots=True)
class ThrottleOptions:
    """What the load may cost; None leaves it open.

    Attributes:
        rows_per_second, bytes_per_second: of all workers together; bytes as COPY sends them.
        replica_lag: seconds by which the slowest physical standby of the source may be behind.
        active_sessions: sessions of others that may be at work on the source at a time.
    """

    rows_per_second: int | None = None
    bytes_per_second: int | None = None
    replica_lag: float | None = None
    active_sessions: int | None = None

    @property
    def holds_back(self) -> bool:
        """Whether anything is limited."""
        return self != ThrottleOptions()

    @property
    def looks(self) -> bool:
        """Whether something of the source must be looked at."""
        return self.replica_lag is not None or self.active_sessions is not None


class Debt:
    """How long to wait for what has passed. The caller brings the time, in seconds."""

    def __init__(self, options: ThrottleOptions) -> None:
        self._rows = options.rows_per_second
        self._bytes = options.bytes_per_second
        self._paid_until = 0.0

    def passed(self, now: float, rows: int, size: int) -> float:
        """Add what has passed; seconds until the next may."""
        cost = max(
            rows / self._rows if self._rows else 0.0, size / self._bytes if self._bytes else 0.0
        )
        self._paid_until = max(self._paid_until, now) + cost
        return self._paid_until - now


class Throttle:
    """Shared by the workers; a context manager where the source is looked at.

    Args:
        called: this migration's sessions have names that begin with it.
    """

    def __init__(self, options: ThrottleOptions, source_dsn: str, called: str) -> None:
        self._options = options
        self._source_dsn = source_dsn
        self._called = called
        self._debt = Debt(options)
        self._lock = threading.Lock()
        self._free = threading.Event()
        self._free.set()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look, name="throttle", daemon=True)
        self.reason: str | None = None

    def __enter__(self) -> Throttle:
        """Raises Refused: CDCM-LOAD-THROTTLE: the role may not see what it is to look at."""
        if self._options.looks:
            self._require_sight()
            self._thread.start()
        return self

    def _require_sight(self) -> None:
        # Without the right the server shows NULL, which must not pass for "no lag".
        with self._source() as conn:
            row = conn.execute("SELECT pg_has_role('pg_read_all_stats', 'USAGE')").fetchone()
        if row != (True,):
            raise Refused(
                "CDCM-LOAD-THROTTLE",
                "the source's role may not see other sessions and standbys, by which the load is "
                "to be held back",
                "On the source: GRANT pg_monitor TO the role of its connection string; or take "
                "`load.max_replica_lag` and `load.max_active_sessions` out.",
            )

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._free.set()
        if self._thread.is_alive():
            self._thread.join()

    def passed(self, rows: int, size: int, check: Callable[[], None]) -> None:
        """Wait for as long as this costs; `check` is called while waiting and may raise."""
        with self._lock:
            wait = self._debt.passed(time.monotonic(), rows, size)
        until = time.monotonic() + wait
        while not self._free.is_set() or time.monotonic() < until:
            check()
            if self._free.wait(_LONGEST_WAIT):
                self._ending.wait(min(_LONGEST_WAIT, max(0.0, until - time.monotonic())))

    def _source(self) -> psycopg.Connection:
        dsn = login(self._source_dsn, Role.MONITOR)
        return connect(dsn, application_name=f"{self._called}-throttle", side="source")

    def _look(self) -> None:
        with ExitStack() as session:
            conn: psycopg.Connection | None = None
            while not self._ending.is_set():
                # A source that does not answer is not held back for: the workers will say so.
                reason = None
                try:
                    if conn is None:
                        conn = session.enter_context(self._source())
                    reason = self._reason(conn)
                except (psycopg.Error, MigratorError):
                    session.close()
                    conn = None
                self.reason = reason
                if reason is None:
                    self._free.set()
                else:
                    self._free.clear()
                self._ending.wait(_LOOK_SECONDS)
            self._free.set()

    def _reason(self, conn: psycopg.Connection) -> str | None:
        lag, active = conn.execute(
            "SELECT (SELECT coalesce(max(extract(epoch FROM replay_lag)), 0)::float8 "
            "FROM pg_stat_replication r LEFT JOIN pg_replication_slots s "
            "ON s.active_pid = r.pid WHERE s.slot_type IS DISTINCT FROM 'logical'), "
            "(SELECT count(*) FROM pg_stat_activity WHERE state = 'active' "
            "AND backend_type = 'client backend' AND NOT starts_with(application_name, %s))",
            (self._called.rpartition("-")[0],),
        ).fetchone() or (0.0, 0)
        limit, sessions = self._options.replica_lag, self._options.active_sessions
        if limit is not None and lag > limit:
            return f"a standby of the source is {lag:.1f} s behind, more than {limit:g} s"
        if sessions is not None and active > sessions:
            return f"{active} sessions are at work on the source, more than {sessions}"
        return None
