"""The demo's plot: a live shop moves; the applier and Connect are killed; both sides end equal.

Only the ordinary commands do the work; this module starts them, looks on, and judges by what it
sees itself: counters on the source, process ids, digests by plain SQL.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from cdc_migrator.demo import shop
from cdc_migrator.demo.digest import Comparison, compare, digest_both
from cdc_migrator.demo.driver import Driver, ask, until
from cdc_migrator.demo.ledger import (
    BulkCommits,
    missing_kinds,
    read_ledger,
    wait_for_every_kind,
)
from cdc_migrator.demo.probe import LagProbe, Percentiles
from cdc_migrator.demo.workload import ALL_KINDS, Settings, Summary, WorkloadProcess
from cdc_migrator.errors import Failed
from cdc_migrator.stack import local

_CALM_SECONDS = 6.0
_KIND_SECONDS = 20.0
_PHASES = ("created", "schema", "capture", "load", "indexes", "stream")


@dataclass(frozen=True, slots=True)
class Kill:
    """One process that was killed.

    Attributes:
        amid: what was open at that moment.
        recovery_seconds: until the applier committed again (for the applier: counted from its
            restart).
    """

    what: str
    pid: int
    amid: str
    recovery_seconds: float


@dataclass(slots=True)
class Report:
    """What the demo saw; seconds, bytes, and row counts."""

    rows_loaded: int = 0
    events_applied: int = 0
    steps: dict[str, float] = field(default_factory=dict)
    kills: list[Kill] = field(default_factory=list)
    committed: dict[str, dict[str, int]] = field(default_factory=dict)
    missing_kinds: dict[str, tuple[str, ...]] = field(default_factory=dict)
    workload: Summary | None = None
    lag_calm: Percentiles | None = None
    lag_all: Percentiles | None = None
    rss_bytes: int = 0
    tables: list[Comparison] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Every table is equal on both sides, and there is at least one."""
        return bool(self.tables) and all(table.equal for table in self.tables)


class Story:
    """Plays the demo once.

    Args:
        directory: for the configuration, the logs, and the stack's state.
        scale: size of the shop; 1.0 is about 400,000 rows.
        tell: takes each line of the story, for people.
        progress: takes a short state line, often, for a live display.
    """

    def __init__(
        self,
        directory: Path,
        stack: local.StackInfo,
        scale: float,
        tell: Callable[[str], None],
        progress: Callable[[str], None],
    ) -> None:
        self._stack = stack
        self._scale = scale
        self._tell = tell
        self._progress = progress
        self._directory = directory
        self._driver = Driver(directory, {"CDC_MIGRATOR_STACK__STATE_DIR": str(stack.state_dir)})
        self._source, self._target = stack.source_dsn, stack.target_dsn
        self._report = Report()
        self._started = time.monotonic()
        self._workload: WorkloadProcess | None = None

    def play(self) -> Report:
        """From an empty source to equal sides. Raises MigratorError where something fails."""
        with ExitStack() as stack:
            stack.callback(self._driver.stop)
            self._shop()
            self._configure()
            workload = stack.enter_context(
                WorkloadProcess(self._source, Settings(), self._directory / "workload.log")
            )
            self._workload = workload
            self._tell("writers start: inserts, updates, deletes, key changes, swaps, rollbacks …")
            probe = stack.enter_context(LagProbe(self._target))
            stream_from = self._migrate()
            calm_until = self._stream()
            self._kill_applier()
            self._kill_connect()
            self._report.workload = workload.stop()
            summary = self._report.workload
            self._tell(
                f"writers stop: {sum(summary.committed.values()):,} transactions committed, "
                f"{summary.per_second:.0f} a second"
            )
            self._drain()
            now = time.time()
            self._report.lag_calm = probe.percentiles(stream_from, calm_until)
            self._report.lag_all = probe.percentiles(stream_from, now)
        self._compare()
        return self._report

    def _step(self, name: str, since: float) -> None:
        self._report.steps[name] = round(time.monotonic() - since, 2)

    def _shop(self) -> None:
        since = time.monotonic()
        shop.create(self._source, self._scale)
        self._step("shop", since)
        rows = ask(
            self._source,
            "SELECT sum(reltuples)::bigint FROM pg_class c JOIN pg_namespace n "
            "ON n.oid = relnamespace WHERE nspname = %s AND relkind = 'r' AND reltuples > 0",
            shop.SCHEMA,
        )
        self._tell(f"a shop of about {rows or 0:,} rows stands on the source")

    def _configure(self) -> None:
        self._driver.call(
            "init", "--name", "shop", "--source", self._source, "--target", self._target,
            "--exclude", f"{shop.LEDGER_SCHEMA}.*", "--file", str(self._driver.config),
        )  # fmt: skip
        self._tell(f"cdc-migrator init wrote {self._driver.config}")

    def _migrate(self) -> float:
        """Start `migrate` and follow it until it streams; when that began (seconds since 1970)."""
        since = time.monotonic()
        self._tell("cdc-migrator migrate")
        self._driver.migrate()
        before: dict[str, int] = {}
        entered: dict[str, float] = {}

        def streaming() -> bool:
            self._watch()
            phase = self._phase()
            if phase is None:
                return False
            if phase not in entered:
                entered[phase] = time.monotonic()
                self._tell(f"  {time.monotonic() - since:5.1f} s  phase {phase}")
                if phase == "load":
                    before.update(read_ledger(self._source))
            self._progress(self._state())
            return phase == "stream"

        until("the migration streams", streaming, 240, 0.1)
        self._note("load", before, read_ledger(self._source))
        self._report.rows_loaded = self._number(
            "SELECT coalesce(sum(rows_loaded), 0)::bigint FROM cdc_migrator.table_progress"
        )
        self._step("migrate until streaming", since)
        self._tell(f"{self._report.rows_loaded:,} rows loaded under live writes")
        caught_up = self._marker()
        until("the backlog of the load is applied", lambda: self._alive() and caught_up(), 120)
        return time.time()

    def _stream(self) -> float:
        """Let it stream for a while; returns when that ended."""
        before = read_ledger(self._source)
        end = time.monotonic() + _CALM_SECONDS
        while time.monotonic() < end:
            self._watch()
            self._progress(self._state())
            time.sleep(0.2)
        after = wait_for_every_kind(self._source, before, ALL_KINDS, _KIND_SECONDS, self._watch)
        self._note("stream", before, after)
        return time.time()

    def _kill_applier(self) -> None:
        with BulkCommits(self._source) as commits:
            commits.wait(10)
            amid = until("the applier is inside a transaction", self._applying, 10, 0.001)
        before = read_ledger(self._source)
        pid = self._number(
            "SELECT split_part(owner, ':', 2)::bigint FROM cdc_migrator.stream_progress"
        )
        self._driver.kill()
        self._tell(f"kill -9 of the applier (pid {pid}) {amid}")
        after = wait_for_every_kind(self._source, before, ALL_KINDS, _KIND_SECONDS, self._watch)
        self._note("between kill and restart", before, after)
        started = time.monotonic()
        self._driver.migrate()
        caught_up = self._marker()
        until("the applier has caught up", lambda: self._alive() and caught_up(), 120)
        recovery = time.monotonic() - started
        self._report.kills.append(Kill("applier", pid, str(amid), round(recovery, 1)))
        self._tell(f"cdc-migrator migrate again: caught up after {recovery:.1f} s")

    def _applying(self) -> str | None:
        self._watch()
        busy = ask(
            self._target,
            "SELECT a.xact_start IS NOT NULL FROM cdc_migrator.stream_progress p "
            "JOIN pg_stat_activity a ON a.pid = p.owner_backend",
        )
        return "in the middle of a batch" if busy else None

    def _kill_connect(self) -> None:
        with BulkCommits(self._source) as commits:
            commits.wait(10)
        pid = local.status(self._stack.state_dir).pids["connect"]
        os.kill(pid, signal.SIGKILL)
        started = time.monotonic()
        amid = "as a large transaction was being sent"
        self._tell(f"kill -9 of the Connect worker (pid {pid}) {amid}")
        caught_up = self._marker()
        until("the stream goes on after Connect's restart",
              lambda: self._alive() and caught_up(), 180)  # fmt: skip
        recovery = time.monotonic() - started
        self._report.kills.append(Kill("Connect worker", pid, amid, round(recovery, 1)))
        self._tell(f"its supervisor restarted it: caught up after {recovery:.1f} s")

    def _drain(self) -> None:
        since = time.monotonic()
        drained = self._marker()
        until("everything is applied", lambda: self._alive() and drained(), 120)
        self._report.events_applied = self._number(
            "SELECT sum(inserts + updates + deletes + truncates)::bigint "
            "FROM cdc_migrator.table_progress"
        )
        self._step("drain", since)

    def _compare(self) -> None:
        since = time.monotonic()
        self._report.tables = compare(*digest_both(self._source, self._target, shop.SCHEMA))
        self._step("digest", since)

    def _marker(self) -> Callable[[], bool]:
        """A condition: what the source had committed by now is applied on the target."""
        position = ask(self._source, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
        return lambda: (
            self._number("SELECT commit_position FROM cdc_migrator.stream_progress")
            >= int(str(position))
        )

    def _alive(self) -> bool:
        self._watch()
        self._progress(self._state())
        return True

    def _watch(self) -> None:
        """Both the command and the application must be at work; their memory is noted."""
        self._driver.check()
        if self._workload is not None:
            self._workload.check()
        with_memory = "SELECT (sample ->> 'rss_bytes')::bigint FROM cdc_migrator.stream_owner_seen"
        if self._phase() == "stream":
            self._report.rss_bytes = max(self._report.rss_bytes, self._number(with_memory))

    def _state(self) -> str:
        row: tuple[str, int, int, float | None] | None = None
        with psycopg.connect(self._target, autocommit=True) as conn:
            row = conn.execute(
                "SELECT (SELECT phase FROM cdc_migrator.migration), sum(rows_loaded)::bigint, "
                "sum(inserts + updates + deletes + truncates)::bigint, "
                "(SELECT (sample ->> 'lag_seconds')::float8 FROM cdc_migrator.stream_owner_seen) "
                "FROM cdc_migrator.table_progress"
            ).fetchone()
        if row is None:
            return ""
        lag = f", lag {row[3]:.2f} s" if row[3] is not None else ""
        return f"{row[0]}: {row[1] or 0:,} rows loaded, {row[2] or 0:,} changes applied{lag}"

    def _phase(self) -> str | None:
        there = ask(
            self._target, "SELECT to_regclass('cdc_migrator.stream_owner_seen') IS NOT NULL"
        )
        found = ask(self._target, "SELECT phase FROM cdc_migrator.migration") if there else None
        return str(found) if found else None

    def _number(self, query: str) -> int:
        return int(str(ask(self._target, query) or 0))

    def _note(self, when: str, before: dict[str, int], after: dict[str, int]) -> None:
        """Remember what committed in an interval; each kind must have."""
        self._report.committed[when] = {
            kind: after.get(kind, 0) - before.get(kind, 0) for kind in ALL_KINDS
        }
        missing = missing_kinds(before, after, ALL_KINDS)
        self._report.missing_kinds[when] = missing
        if missing:
            raise Failed(
                "CDCM-DEMO-KIND-MISSING",
                f"no transaction of these kinds committed on the source during {when}: "
                f"{', '.join(missing)}",
                "Run the demo again; with a larger --scale the load takes longer.",
            )
