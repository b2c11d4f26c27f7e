"""Beside the pipeline: says that the owner is alive, and measures.

Two threads, because a measurement may wait for a server that does not answer, and the sign of
life must not. Being fenced ends the service, and so does a migration that was removed; a target
that is away for a while does not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import psutil
import psycopg
import structlog

from cdc_migrator.control import progress
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Fenced, MigratorError, Refused
from cdc_migrator.model.logins import Role, login
from cdc_migrator.monitor.gates import gates
from cdc_migrator.monitor.lag import RateWindow, events_pending
from cdc_migrator.monitor.limits import Limits
from cdc_migrator.monitor.metrics import Metrics
from cdc_migrator.monitor.sample import Sample, ServiceSample
from cdc_migrator.monitor.sampler import Sampler

_BEAT_SECONDS = 1.0
_log = structlog.get_logger("cdc_migrator.service")


class Keeper:
    """Sign of life and measurements of the owner with `epoch`.

    Args:
        target_dsn: gives the target's complete connection string.
        measure: the service's own numbers as of now, cheap; called each second.
        on_lost: called once if the stream is no longer this process's: another one has taken it
            over (Fenced), or the migration is gone.
        read_totals: transactions and events applied by this process so far.
        limits: what the gates measure by, whose answers are among the metrics.
    """

    def __init__(
        self,
        target_dsn: Callable[[], str],
        epoch: int,
        sampler: Sampler,
        metrics: Metrics,
        measure: Callable[[], ServiceSample],
        read_totals: Callable[[], tuple[int, int]],
        on_lost: Callable[[MigratorError], None],
        limits: Limits,
    ) -> None:
        self._limits = limits
        self._target_dsn = target_dsn
        self._epoch = epoch
        self._sampler = sampler
        self._metrics = metrics
        self._measure = measure
        self._totals = read_totals
        self._on_lost = on_lost
        self._stop = threading.Event()
        self._rates = RateWindow()
        self._process = psutil.Process()
        self.sample: Sample | None = None
        self.seen_at = time.monotonic()
        self._threads = [
            threading.Thread(target=self._beat, name="alive", daemon=True),
            threading.Thread(target=self._watch, name="sampler", daemon=True),
        ]

    def __enter__(self) -> Keeper:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def now(self) -> ServiceSample:
        """The service's own measurements with rates, lag and what is pending."""
        own = self._measure()
        rates = self._rates.rates()
        sample = self.sample
        stream = sample.stream if sample else None
        pending, _ = events_pending(
            stream.next_offset if stream else None,
            sample.end_offset if sample else None,
            own.at_end,
        )
        return replace(
            own,
            at=datetime.now(UTC),
            events_pending=pending,
            transactions_per_second=rates.transactions if rates else None,
            events_per_second=rates.events if rates else None,
            rss_bytes=self._process.memory_info().rss,
        )

    def _said(self) -> ServiceSample:
        """What others are told: also what only the last measurement knows."""
        said, sample = self.now(), self.sample
        if sample is None:
            return said
        catch_up = sample.catch_up
        return replace(
            said,
            lag_seconds=sample.lag_seconds,
            records_applied_per_second=catch_up.applied_per_second if catch_up else None,
            records_arriving_per_second=catch_up.arriving_per_second if catch_up else None,
            wal_bytes_per_second=sample.wal_bytes_per_second,
        )

    def _beat(self) -> None:
        conn: psycopg.Connection | None = None
        while not self._stop.is_set():
            self._rates.add(time.monotonic(), *self._totals())
            try:
                if conn is None:
                    conn = connect(
                        login(self._target_dsn(), Role.APPLY),
                        application_name="cdc-migrator alive",
                        side="target",
                        settings={"statement_timeout": "5s", "lock_timeout": "3s"},
                    )
                progress.seen(conn, self._epoch, self._said().to_json())
                self.seen_at = time.monotonic()
            except Fenced as fenced:
                self._on_lost(fenced)
                break
            except psycopg.errors.UndefinedTable:
                self._on_lost(
                    Refused(
                        "CDCM-MIGRATION-GONE",
                        "the migration was removed from the target while its stream was applied",
                        "Nothing is left to apply. `cdc-migrator migrate` starts it again.",
                    )
                )
                break
            except (psycopg.Error, MigratorError) as error:
                _log.warning("alive-not-said", reason=type(error).__name__)
                if conn is not None:
                    with suppress(psycopg.Error):
                        conn.close()
                    conn = None
            self._stop.wait(_BEAT_SECONDS)
        if conn is not None:
            with suppress(psycopg.Error):
                conn.close()

    def _watch(self) -> None:
        while not self._stop.is_set():
            sample = self._sampler.sample(self.now())
            self.sample = sample
            self._metrics.update(sample, gates(sample, self._limits))
            self._stop.wait(_BEAT_SECONDS)
