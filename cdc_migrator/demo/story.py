"""The demo's plot: a live shop moves; the applier and Connect are killed; both sides end equal.

Then the shop is led over to the target (`leaving`), comes back by itself when something breaks
there (`returning`), and goes over for good (`ending`). Only the ordinary commands do the work;
these modules start them, look on, and judge by what they see themselves: counters in both
databases, process ids, digests by plain SQL.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from cdc_migrator.demo import shop
from cdc_migrator.demo.digest import compare, digest_both
from cdc_migrator.demo.driver import ask, until
from cdc_migrator.demo.ending import Ending
from cdc_migrator.demo.leaving import Leaving
from cdc_migrator.demo.ledger import (
    BulkCommits,
    missing_kinds,
    read_ledger,
    wait_for_every_kind,
)
from cdc_migrator.demo.probe import LagProbe
from cdc_migrator.demo.report import Kill, Report
from cdc_migrator.demo.returning import RULES, Returning
from cdc_migrator.demo.scene import Scene
from cdc_migrator.demo.switches import switch
from cdc_migrator.demo.tally import Summary
from cdc_migrator.demo.workload import ALL_KINDS, Settings, WorkloadProcess
from cdc_migrator.errors import Failed
from cdc_migrator.stack import local

_CALM_SECONDS = 4.0
_KIND_SECONDS = 20.0
# What `init` cannot know: what leads the applications over; and how soon one that was killed is
# replaced.
_HOOKS = """
cutover:
  hooks:
    - kind: route
service:
  takeover_after: 5s
"""
# What takes the machine to its limits while rows move leaves too little of it for what comes then.
_MOVING = Settings()
_SWITCHING = Settings(rate=100, bulk_every=6.0)


class Story:
    """Plays the demo once.

    Args:
        scale: size of the shop; 1.0 is about 400,000 rows.
        finish: end the migration; else it is left up.
    """

    def __init__(self, scene: Scene, scale: float, finish: bool) -> None:
        self._scene = scene
        self._report = scene.report
        self._scale = scale
        self._finish = finish

    def play(self) -> Report:
        """From an empty source to the target. Raises MigratorError where something fails."""
        with ExitStack() as stack:
            stack.callback(self._scene.driver.stop)
            self._shop()
            self._configure()
            moved = self._move()
            if self._report.equal:
                came_back = self._there_and_back(moved)
                if self._report.returned and self._report.returned.good:
                    self._for_good(moved, came_back)
        return self._report

    def _move(self) -> Summary:
        """Until both sides are equal; what the writers did."""
        scene = self._scene
        with self._writers(_MOVING, None) as workload, LagProbe(scene.target) as probe:
            scene.tell("writers start: inserts, updates, deletes, key changes, swaps, rollbacks …")
            stream_from = self._migrate()
            calm_until = self._stream()
            self._kill_applier()
            self._kill_connect()
            summary = self._report.workload = workload.stop()
            scene.tell(
                f"writers stop to be counted: {sum(summary.committed.values()):,} transactions "
                f"committed, {summary.per_second:.0f} a second"
            )
            self._drain()
            now = time.time()
            self._report.lag_calm = probe.percentiles(stream_from, calm_until)
            self._report.lag_all = probe.percentiles(stream_from, now)
        self._compare()
        return summary

    def _there_and_back(self, moved: Summary) -> Summary:
        """Over to the target and, when it breaks, back to the source; what the writers did."""
        scene, report = self._scene, self._report
        leaving, returning = Leaving(scene), Returning(scene)
        with self._writers(_SWITCHING, scene.target) as workload:
            scene.tell("writers start again, and do not stop until they are back")
            rehearsed, done = leaving.play()
            returning.play()
            summary = workload.stop()
        report.followers.append(summary)
        report.rehearsal = switch(
            rehearsed.document, rehearsed.seconds, summary, "source", "source"
        )
        report.cutover = switch(done.document, done.seconds, summary, "source", "target")
        report.returned = returning.judge(moved, summary)
        returning.mend()
        return summary

    def _for_good(self, *earlier: Summary) -> None:
        """Over to the target, and the migration ends."""
        scene = self._scene
        ending = Ending(scene, self._finish)
        with self._writers(_SWITCHING, scene.target) as workload:
            scene.tell("writers start for the last time, and do not stop until the end")
            ending.play()
            summary = workload.stop()
        self._report.followers.append(summary)
        self._report.ended = ending.judge(earlier, summary)

    @contextmanager
    def _writers(self, settings: Settings, target: str | None) -> Iterator[WorkloadProcess]:
        """The application; with a target it follows the routing row."""
        log = self._scene.directory / "workload.log"
        with WorkloadProcess(self._scene.source, settings, log, target) as workload:
            self._scene.workload = workload
            try:
                yield workload
            finally:
                self._scene.workload = None

    def _shop(self) -> None:
        since = time.monotonic()
        shop.create(self._scene.source, self._scale)
        self._scene.step("shop", since)
        rows = ask(
            self._scene.source,
            "SELECT sum(reltuples)::bigint FROM pg_class c JOIN pg_namespace n "
            "ON n.oid = relnamespace WHERE nspname = %s AND relkind = 'r' AND reltuples > 0",
            shop.SCHEMA,
        )
        self._scene.tell(f"a shop of about {rows or 0:,} rows stands on the source")

    def _configure(self) -> None:
        scene, file = self._scene, self._scene.driver.config
        sides = ("--source", scene.source, "--target", scene.target)
        scene.driver.call("init", "--name", "shop", *sides, "--file", str(file))
        with file.open("a") as config:
            config.write(_HOOKS + RULES)
        scene.tell(f"cdc-migrator init wrote {file}")

    def _migrate(self) -> float:
        """Start `migrate` and follow it until it streams; when that began (seconds since 1970)."""
        since = time.monotonic()
        self._scene.tell("cdc-migrator migrate")
        self._scene.driver.migrate()
        before: dict[str, int] = {}
        entered: dict[str, float] = {}

        def streaming() -> bool:
            self._scene.watch()
            phase = self._scene.phase()
            if phase is None:
                return False
            if phase not in entered:
                entered[phase] = time.monotonic()
                self._scene.tell(f"  {time.monotonic() - since:5.1f} s  phase {phase}")
                if phase == "load":
                    before.update(read_ledger(self._scene.source))
            self._scene.progress(self._scene.state())
            return phase == "stream"

        until("the migration streams", streaming, 240, 0.1)
        self._note("load", before, read_ledger(self._scene.source))
        self._report.rows_loaded = self._scene.number(
            "SELECT coalesce(sum(rows_loaded), 0)::bigint FROM cdc_migrator.table_progress"
        )
        self._scene.step("migrate until streaming", since)
        self._scene.tell(f"{self._report.rows_loaded:,} rows loaded under live writes")
        caught_up = self._scene.marker()
        until(
            "the backlog of the load is applied", lambda: self._scene.alive() and caught_up(), 120
        )
        return time.time()

    def _stream(self) -> float:
        """Let it stream for a while; returns when that ended."""
        before = read_ledger(self._scene.source)
        end = time.monotonic() + _CALM_SECONDS
        while time.monotonic() < end:
            self._scene.watch()
            self._scene.progress(self._scene.state())
            time.sleep(0.2)
        after = wait_for_every_kind(
            self._scene.source, before, ALL_KINDS, _KIND_SECONDS, self._scene.watch
        )
        self._note("stream", before, after)
        return time.time()

    def _kill_applier(self) -> None:
        with BulkCommits(self._scene.source) as commits:
            commits.wait(10)
            amid = until("the applier is inside a transaction", self._applying, 10, 0.001)
        before = read_ledger(self._scene.source)
        pid = self._scene.number(
            "SELECT split_part(owner, ':', 2)::bigint FROM cdc_migrator.stream_progress"
        )
        self._scene.driver.kill()
        self._scene.tell(f"kill -9 of the applier (pid {pid}) {amid}")
        after = wait_for_every_kind(
            self._scene.source, before, ALL_KINDS, _KIND_SECONDS, self._scene.watch
        )
        self._note("between kill and restart", before, after)
        started = time.monotonic()
        self._scene.driver.migrate()
        caught_up = self._scene.marker()
        until("the applier has caught up", lambda: self._scene.alive() and caught_up(), 120)
        recovery = time.monotonic() - started
        self._report.kills.append(Kill("applier", pid, str(amid), round(recovery, 1)))
        self._scene.tell(f"cdc-migrator migrate again: caught up after {recovery:.1f} s")

    def _applying(self) -> str | None:
        self._scene.watch()
        busy = ask(
            self._scene.target,
            "SELECT a.xact_start IS NOT NULL FROM cdc_migrator.stream_progress p "
            "JOIN pg_stat_activity a ON a.pid = p.owner_backend",
        )
        return "in the middle of a batch" if busy else None

    def _kill_connect(self) -> None:
        with BulkCommits(self._scene.source) as commits:
            commits.wait(10)
        pid = local.status(self._scene.stack.state_dir).pids["connect"]
        os.kill(pid, signal.SIGKILL)
        started = time.monotonic()
        amid = "as a large transaction was being sent"
        self._scene.tell(f"kill -9 of the Connect worker (pid {pid}) {amid}")
        caught_up = self._scene.marker()
        until("the stream goes on after Connect's restart",
              lambda: self._scene.alive() and caught_up(), 180)  # fmt: skip
        recovery = time.monotonic() - started
        self._report.kills.append(Kill("Connect worker", pid, amid, round(recovery, 1)))
        self._scene.tell(f"its supervisor restarted it: caught up after {recovery:.1f} s")

    def _drain(self) -> None:
        since = time.monotonic()
        drained = self._scene.marker()
        until("everything is applied", lambda: self._scene.alive() and drained(), 120)
        self._report.events_applied = self._scene.number(
            "SELECT sum(inserts + updates + deletes + truncates)::bigint "
            "FROM cdc_migrator.table_progress"
        )
        self._scene.step("drain", since)

    def _compare(self) -> None:
        since = time.monotonic()
        sides = digest_both(self._scene.source, self._scene.target, *shop.SCHEMAS)
        self._report.tables = compare(*sides)
        self._scene.step("digest", since)
        equal = sum(table.equal for table in self._report.tables)
        self._scene.tell(
            f"both sides by plain SQL: {equal} of {len(self._report.tables)} tables equal"
        )

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
