"""Measures end-to-end lag from outside: looks at the target's progress row many times a second.

Each value of the row is one commit on the target with the source's commit time of the newest
transaction in it; both clocks are this machine's.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import psycopg

_EVERY = 0.02
_RECONNECT_SECONDS = 0.2
_QUERY = (
    "SELECT extract(epoch FROM applied_at)::float8, "
    "extract(epoch FROM applied_at - source_committed_at)::float8 "
    "FROM cdc_migrator.stream_progress WHERE applied_at IS NOT NULL"
)


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Seconds from source commit to target commit, over `count` commits that were seen."""

    count: int
    p50: float
    p99: float
    max: float


class LagProbe:
    """Collects lags in a thread of its own; a context manager."""

    def __init__(self, target_dsn: str) -> None:
        self._dsn = target_dsn
        self._stop = threading.Event()
        self._seen: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._watch, name="lag probe", daemon=True)

    def __enter__(self) -> LagProbe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def percentiles(self, since: float, until: float) -> Percentiles | None:
        """Of the commits in [since, until), seconds since 1970; None if there were none."""
        lags = sorted(lag for at, lag in self._seen if since <= at < until)
        if not lags:
            return None
        last = len(lags) - 1
        return Percentiles(len(lags), lags[last // 2], lags[round(last * 0.99)], lags[last])

    def _watch(self) -> None:
        while not self._stop.is_set():
            # Before there is a progress row, and while the target is away, there is nothing.
            with suppress(psycopg.Error), psycopg.connect(self._dsn, autocommit=True) as conn:
                self._follow(conn)
            self._stop.wait(_RECONNECT_SECONDS)

    def _follow(self, conn: psycopg.Connection) -> None:
        last = None
        while not self._stop.is_set():
            started = time.monotonic()
            row = conn.execute(_QUERY).fetchone()
            if row is not None and row != last:
                last = row
                self._seen.append((row[0], row[1]))
            self._stop.wait(max(0.0, _EVERY - (time.monotonic() - started)))
