"""Kill one part of a working migration in the middle of large transactions; see what comes of it.

Each round: writers run, a large transaction (interleaved with small ones) passes through the
topic, the applier has committed within the last second, then the fault. Afterwards the writers go
on for a while and stop, everything is drained, and both sides are digested by plain SQL.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg

from cdc_migrator.demo import shop
from cdc_migrator.demo.digest import compare, digest_both
from cdc_migrator.demo.ledger import BulkCommits
from cdc_migrator.demo.workload import Settings, WorkloadProcess
from cdc_migrator.stack import local
from tests.support.live import LiveMigration, one, wait_for
from tests.support.watcher import TopicWatcher

FAULTS = ("run", "connect", "broker", "walsender")
LOST = ("halted: CDCM-STREAM-UNPROVEN-KEY", "halted: CDCM-STREAM-UNPROVEN-COPY")
_CHILD = {"connect": "connect", "broker": "kafka"}


@dataclass(frozen=True, slots=True)
class Round:
    """One fault and its outcome.

    Attributes:
        bulk_keys: see `demo.workload.Settings`; few make a lost event likely.
        open_in_topic: rows seen of a transaction whose END was not in the topic at the fault;
            None if none was open there.
        applying: the applier was inside a transaction on the target.
        open_on_source: writing transactions open on the source.
        working_ms: milliseconds since the applier's last commit.
        outcome: ``equal``, ``differs: <tables>`` or ``halted: <code>``.
        recovery_seconds: from the fault to the applier's next commit.
        rebegun: transactions that the topic shows cut and begun again, in this round.
    """

    fault: str
    seed: int
    bulk_keys: int
    open_in_topic: int | None
    applying: bool
    open_on_source: int
    working_ms: int
    outcome: str
    recovery_seconds: float
    rebegun: int

    @property
    def hit(self) -> bool:
        """Whether a transaction was open where the fault struck."""
        return self.applying or self.open_in_topic is not None

    @property
    def allowed(self) -> bool:
        """Equal; or halted where the connector itself lost an event, which it does now and then."""
        lost = self.outcome in LOST and self.fault != "run"
        return self.outcome == "equal" or lost

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"hit": self.hit}


class Resume:
    """A live migration that goes through faults; `migration` is made by the caller."""

    def __init__(self, migration: LiveMigration, stack_dir: Path) -> None:
        self.migration = migration
        self._stack_dir = stack_dir
        self._run: Any = None

    def begin(self) -> None:
        """Make the shop, load it and start the stream."""
        shop.create(self.migration.source, 0.02)
        self.migration.prepare()
        self._run = self.migration.start("run")
        assert self.migration.drain(), self.migration.halted()

    def round(self, fault: str, seed: int, bulk_keys: int = 500) -> Round:
        """One fault under writers, then drained and compared."""
        migration = self.migration
        settings = Settings(
            writers=3,
            rate=150,
            seed=seed,
            bulk_rows=30_000,
            bulk_seconds=0.7,
            bulk_every=2.0,
            bulk_keys=bulk_keys,
        )
        log = migration.directory / "workload.log"
        with (
            TopicWatcher(migration.stack.bootstrap_servers, migration.topic) as watcher,
            BulkCommits(migration.source) as commits,
        ):
            with WorkloadProcess(migration.source, settings, log) as workload:
                found = self._moment(fault, seed, watcher, commits)
                self._strike(fault)
                struck = time.monotonic()
                struck_at = one(migration.target, "SELECT clock_timestamp()")
                if fault == "run":
                    self._run = migration.start("run")
                wait_for(
                    f"the applier goes on after the fault on {fault}",
                    lambda: migration.halted() or migration.progress()["applied_at"] > struck_at,
                    120,
                )
                recovery = time.monotonic() - struck
                time.sleep(1.0)  # let the writers work on through what was recovered
                workload.stop()
            outcome = self._outcome()
            rebegun = watcher.rebegun
        return Round(
            fault=fault,
            seed=seed,
            bulk_keys=bulk_keys,
            outcome=outcome,
            recovery_seconds=round(recovery, 2),
            rebegun=rebegun,
            **found,
        )

    def _moment(
        self, fault: str, seed: int, watcher: TopicWatcher, commits: BulkCommits
    ) -> dict[str, Any]:
        """Wait until the stack is in the middle of something; return what was open."""
        inside = fault == "run" and seed % 2 == 1
        deadline = time.monotonic() + 40
        with (
            psycopg.connect(self.migration.target, autocommit=True) as target,
            psycopg.connect(self.migration.source, autocommit=True) as source,
        ):
            while True:
                commits.wait(5)
                until = time.monotonic() + 1.5
                while time.monotonic() < until:
                    row = target.execute(
                        "SELECT extract(epoch FROM clock_timestamp() - p.applied_at) * 1000, "
                        "coalesce(a.xact_start IS NOT NULL, false) "
                        "FROM cdc_migrator.stream_progress p "
                        "LEFT JOIN pg_stat_activity a ON a.pid = p.owner_backend"
                    ).fetchone()
                    assert row is not None
                    since, applying = int(row[0] or 10**6), bool(row[1])
                    opened = watcher.open
                    rows = opened.rows if opened is not None else 0
                    if since < 1000 and (applying if inside else rows > 300):
                        return self._found(source, opened.rows if opened else None, applying, since)
                if time.monotonic() > deadline and since < 1000:
                    return self._found(source, None, applying, since)
                assert time.monotonic() < deadline + 60, "the applier is not working"

    @staticmethod
    def _found(
        source: psycopg.Connection, rows: int | None, applying: bool, since: int
    ) -> dict[str, Any]:
        row = source.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL"
        ).fetchone()
        return {
            "open_in_topic": rows,
            "applying": applying,
            "open_on_source": row[0] if row else 0,
            "working_ms": since,
        }

    def _strike(self, fault: str) -> None:
        if fault == "run":
            os.kill(self._run.pid, signal.SIGKILL)
            self._run.wait()
        elif fault == "walsender":
            ended = one(
                self.migration.source,
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
                "WHERE slot_name = %s",
                self.migration.slot,
            )
            assert ended, "the slot had no walsender"
        else:
            os.kill(local.status(self._stack_dir).pids[_CHILD[fault]], signal.SIGKILL)

    def _outcome(self) -> str:
        if not self.migration.drain(120):
            halted = self.migration.halted()
            assert halted is not None
            return f"halted: {halted['code']}"
        lines = compare(*digest_both(self.migration.source, self.migration.target, shop.SCHEMA))
        assert sum(line.source.rows for line in lines if line.source) > 1000
        wrong = [line.table for line in lines if not line.equal]
        return f"differs: {', '.join(wrong)}" if wrong else "equal"
