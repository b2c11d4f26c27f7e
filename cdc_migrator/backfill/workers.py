"""The threads that copy chunks; each owns a session on either side and replaces both on an error.

A server that is away is waited for; a lost snapshot ends that table's chunks and leaves them to
the next round; anything else ends the load.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace

import psycopg

from cdc_migrator.backfill.copy import Stopped, copy_chunk
from cdc_migrator.backfill.progress import LoadProgress, Meter
from cdc_migrator.backfill.reading import Job, SourceError
from cdc_migrator.backfill.snapshot import SnapshotLost
from cdc_migrator.backfill.throttle import Throttle
from cdc_migrator.control import deferring, fence
from cdc_migrator.databases.postgres.coded import coded
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.sqlstate import Disposition, disposition
from cdc_migrator.errors import Failed, MigratorError
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.tables import TableName

_TICK = 0.25
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)


class Workers:
    """Copies a list of jobs with several threads."""

    def __init__(
        self,
        source_dsn: str,
        target_dsn: str,
        called: str,
        patience: float,
        meter: Meter,
        throttle: Throttle,
    ) -> None:
        self._source_dsn = source_dsn
        self._target_dsn = target_dsn
        self._called = called
        self._patience = patience
        self._meter = meter
        self._throttle = throttle
        self._lock = threading.Lock()  # for what follows, and for the meter
        self._jobs: deque[Job] = deque()
        self._open: dict[TableName, int] = {}
        self._lost: set[TableName] = set()
        self._ending = threading.Event()

    def run(
        self, jobs: Sequence[Job], threads: int, on_progress: Callable[[LoadProgress], None]
    ) -> None:
        """Copy all jobs; returns early, without an error, when a snapshot turns out lost.

        Raises:
            MigratorError: the first error that waiting does not mend.
        """
        self._jobs.extend(jobs)
        for job in jobs:
            self._open[job.chunk.table] = self._open.get(job.chunk.table, 0) + 1
        with ThreadPoolExecutor(min(threads, len(jobs)), thread_name_prefix="load") as pool:
            futures = [pool.submit(self._work) for _ in range(min(threads, len(jobs)))]
            try:
                self._watch(futures, on_progress)
            finally:
                # Also when this thread is interrupted: nobody waits for a whole chunk to pass.
                self._ending.set()
        for future in futures:
            error = future.exception()
            if error is not None and not isinstance(error, Stopped):
                raise error
        on_progress(self._meter.read(time.monotonic()))

    def _watch(
        self, futures: list[Future[None]], on_progress: Callable[[LoadProgress], None]
    ) -> None:
        while True:
            done, running = wait(futures, timeout=_TICK, return_when=FIRST_EXCEPTION)
            if not running or any(future.exception() for future in done):
                return
            with self._lock:
                progress = self._meter.read(time.monotonic())
            on_progress(replace(progress, waits=self._throttle.reason))

    def _work(self) -> None:
        with ExitStack() as sessions:
            source: psycopg.Connection | None = None
            target: psycopg.Connection | None = None
            troubled: float | None = None
            failures = 0
            while (job := self._next()) is not None:
                try:
                    if source is None or target is None:
                        # Closed, never committed: either may be in the middle of a COPY.
                        source = self._source()
                        sessions.callback(source.close)
                        target = self._target()
                        sessions.callback(target.close)
                    self._copy(source, target, job)
                    troubled, failures = None, 0
                except SnapshotLost:
                    with self._lock:
                        self._lost.add(job.chunk.table)
                except (psycopg.Error, SourceError, Failed) as exc:
                    sessions.close()
                    source = target = None
                    troubled = troubled or time.monotonic()
                    waited = time.monotonic() - troubled
                    if not _mends(exc) or waited > self._patience:
                        raise _final(exc, job) from exc
                    with self._lock:
                        self._jobs.appendleft(job)
                    self._ending.wait(_PAUSES[min(failures, len(_PAUSES) - 1)])
                    failures += 1

    def _next(self) -> Job | None:
        """The next job of a table that can still be read; None when there is none."""
        with self._lock:
            while self._jobs and not self._ending.is_set():
                job = self._jobs.popleft()
                if job.chunk.table not in self._lost:
                    return job
        return None

    def _copy(self, source: psycopg.Connection, target: psycopg.Connection, job: Job) -> None:
        table, number = job.chunk.table, job.chunk.number

        def stop() -> None:
            if self._ending.is_set():
                raise Stopped

        def passed(rows: int, size: int) -> None:
            stop()
            with self._lock:
                self._meter.passed(table, number, rows, size)
            self._throttle.passed(rows, size, stop)

        with self._lock:
            self._meter.begin(table, number, job.chunk.weight)
        try:
            copied = copy_chunk(source, target, job, passed)
        except BaseException:
            with self._lock:
                self._meter.failed(table, number)
            raise
        with self._lock:
            self._open[table] -= 1
            rows, size = copied or (0, 0)
            self._meter.done(table, number, rows, size, last=self._open[table] == 0)

    def _source(self) -> psycopg.Connection:
        return connect(
            login(self._source_dsn, Role.VERIFY),
            application_name=self._called,
            side="source",
            settings={"transaction_timeout": "0"},
        )

    def _target(self) -> psycopg.Connection:
        target = connect(
            login(self._target_dsn, Role.APPLY),
            application_name=self._called,
            side="target",
            settings={"transaction_timeout": "0"},
        )
        try:
            deferring.hold_off(target)
            fence.present(target)
        except (psycopg.Error, MigratorError):
            target.close()
            raise
        return target


def _mends(exc: BaseException) -> bool:
    """Whether the same work may succeed later."""
    cause = exc.__cause__ if isinstance(exc, SourceError) else exc
    if isinstance(cause, psycopg.Error):
        return disposition(cause) is Disposition.RETRY
    return isinstance(cause, Failed) and cause.code == "CDCM-DB-UNREACHABLE"


def _final(exc: BaseException, job: Job) -> MigratorError:
    if isinstance(exc, MigratorError):
        return exc
    doing = f"copying {job.chunk.table}"
    if isinstance(exc, SourceError) and isinstance(exc.__cause__, psycopg.Error):
        return coded(exc.__cause__, "source", doing)
    assert isinstance(exc, psycopg.Error)
    return coded(exc, "target", doing)
