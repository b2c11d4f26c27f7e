"""One pass: all tables of a run are planned, digested and, where they differ, looked into.

Workers take tables and units from one list, each with one session on either side. A unit that is
proven is journalled with its differences and its moment, and never read again in this run. What
could not be read at a point (its snapshot was lost, the table truncated or rewritten) is read again
at a later one, and never reported.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import psycopg

from cdc_migrator.control import differences, reconcile
from cdc_migrator.control.reconcile import Part, Run, RunState
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.alignment import Aligned, Aligner
from cdc_migrator.model.differences import RowDifference
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile import narrow
from cdc_migrator.reconcile.chunks import Range, Sizes, Slicer, Unit
from cdc_migrator.reconcile.digest import NOTHING, digest, rows, unequal
from cdc_migrator.reconcile.expressions import Hashing
from cdc_migrator.reconcile.narrow import HashesDisagree, Look
from cdc_migrator.reconcile.pairs import Pair
from cdc_migrator.reconcile.planning import plan
from cdc_migrator.reconcile.points import Points
from cdc_migrator.reconcile.snapshot import Sides, SnapshotLost, TableMoved

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class PassOptions:
    """How a pass goes about it.

    Attributes:
        workers: sessions on either side.
        share: of the time in which a worker keeps the servers busy, above 0 up to 1.
        seconds: after which the pass stops, to be resumed; None: when it is through.
        max_age: seconds for which one alignment point is used.
        most: differences of one table that are named.
        values: whether differences carry the values.
    """

    workers: int = 2
    share: float = 1.0
    seconds: float | None = None
    max_age: float = 570.0
    most: int = 10_000
    values: bool = False
    sizes: Sizes = field(default_factory=Sizes)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pass is: rows as far as they were estimated."""

    tables: int
    tables_done: int
    rows: int
    rows_done: int
    differences: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a pass.

    Attributes:
        finished: False: it was stopped before it was through.
        unproven: tables that could not be read, and why.
        values: with `PassOptions.values`: the differences with their values, of this process.
    """

    finished: bool
    unproven: dict[TableName, str]
    values: list[RowDifference]


class _Stopped(Exception):
    """The pass was told to stop, or its time is up."""


class Pass:
    """One process's work on a run. Use it once.

    Args:
        control: a session on the target for the journal; the pass alone uses it meanwhile.
        observe: called now and then, by any worker.
    """

    def __init__(
        self,
        ends: tuple[str, str],
        called: str,
        aligner: Aligner,
        control: psycopg.Connection,
        run: Run,
        pairs: Iterable[Pair],
        hashing: Hashing,
        options: PassOptions,
        observe: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._ends = ends
        self._called = called
        self._points = Points(aligner, options.max_age)
        self._control = control
        self._run = run
        self._pairs = {pair.source.name: pair for pair in pairs}
        self._hashing = dict.fromkeys(self._pairs, hashing)
        self._options = options
        self._observe = observe
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._todo: deque[tuple[Pair, Unit | None, Hashing]] = deque()
        self._busy = 0
        self._stop = threading.Event()
        self._until: float | None = None
        self._named: Counter[TableName] = Counter()
        self._left: Counter[TableName] = Counter()
        self._weight: Counter[TableName] = Counter()
        self._done: Counter[TableName] = Counter()
        self._outcome = Outcome(True, {}, [])

    def run(self) -> Outcome:
        """Work until all is proven, the time is up or `stop` is called.

        Raises:
            MigratorError: a database or the alignment failed; what was proven stays so.
        """
        if self._options.seconds is not None:
            self._until = time.monotonic() + self._options.seconds
        self._begin()
        try:
            with ThreadPoolExecutor(self._options.workers, "reconcile") as pool:
                workers = [pool.submit(self._work) for _ in range(self._options.workers)]
                try:
                    wait(workers)
                finally:
                    self.stop()
            for worker in workers:
                worker.result()
        finally:
            self._points.release()
        finished = not any(self._left.values()) and not self._todo
        return Outcome(finished, self._outcome.unproven, self._outcome.values)

    def stop(self) -> None:
        """Let the workers end after the statement that they are at."""
        with self._changed:
            self._stop.set()
            self._changed.notify_all()

    def _begin(self) -> None:
        planned: dict[TableName, list[Part]] = {}
        with speaking("target", "reading what was compared"):
            for part in reconcile.parts(self._control, self._run.id):
                planned.setdefault(part.table, []).append(part)
            for known in reconcile.proven(self._control, self._run.id):
                self._named[known.table] = known.differences
        for name, pair in sorted(self._pairs.items(), key=lambda item: -item[1].source.bytes):
            hashing = self._hashing[name]
            if name not in planned:
                self._weight[name] = pair.source.estimated_rows
                self._left[name] = 1
                self._todo.append((pair, None, hashing))
                continue
            for part in planned[name]:
                self._weight[name] += part.weight
                if part.done:
                    self._done[name] += part.weight
                else:
                    self._left[name] += 1
                    self._todo.append((pair, _unit(part), hashing))

    def _work(self) -> None:
        try:
            with Sides(*self._ends, self._called) as sides:
                while (item := self._take()) is not None:
                    try:
                        self._do(sides, *item)
                    finally:
                        with self._changed:
                            self._busy -= 1
                            self._changed.notify_all()
        except _Stopped:
            pass
        finally:
            if not self._finished():
                self.stop()

    def _finished(self) -> bool:
        with self._lock:
            return not self._todo and not self._busy

    def _take(self) -> tuple[Pair, Unit | None, Hashing] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._todo or not self._busy or self._stop.is_set())
            if self._stop.is_set() or not self._todo:
                return None
            self._busy += 1
            return self._todo.popleft()

    def _do(self, sides: Sides, pair: Pair, unit: Unit | None, hashing: Hashing) -> None:
        name = pair.source.name
        point: Aligned | None = None
        reason = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._stop.wait(0.1 * 2**attempt)
            self._check()
            with self._lock:
                if self._hashing[name] is not hashing or name in self._outcome.unproven:
                    return  # the table is planned anew, or given up
            point = self._points.current() if point is None else self._points.after(point)
            try:
                if unit is None:
                    self._plan(sides, pair, hashing, point)
                else:
                    self._prove(sides, pair, unit, hashing, point)
                return
            except TableMoved:
                reason = "it is truncated, rewritten or locked again and again"
            except SnapshotLost:
                reason = "no alignment point lived long enough to read it"
            except HashesDisagree:
                if self._plan_anew(pair, hashing):
                    return
                reason = "its digests differ, and none of its rows does"
        self._give_up(name, reason)

    def _plan(self, sides: Sides, pair: Pair, hashing: Hashing, point: Aligned) -> None:
        name = pair.source.name
        sample = self._run.mode == "sample"
        units = plan(sides, pair, hashing, point, self._options.sizes, sample)
        with self._changed:
            with speaking("target", "writing down what is compared"):
                reconcile.plan(self._control, self._run.id, name, [_part(one) for one in units])
            reach("reconcile.planned")
            self._weight[name] = sum(one.weight for one in units)
            self._done[name] = 0
            self._left[name] = len(units)
            # In front, so that a table is through before the next one is begun.
            self._todo.extendleft((pair, one, hashing) for one in reversed(units))
            self._changed.notify_all()

    def _plan_anew(self, pair: Pair, hashing: Hashing) -> bool:
        """Compare the whole table in a safer way; False if there is none."""
        slower = hashing.slower()
        if slower == hashing:
            return False
        with self._changed:
            if self._hashing[pair.source.name] is hashing:
                self._hashing[pair.source.name] = slower
                self._named[pair.source.name] = 0
                self._left[pair.source.name] = 1
                self._todo.appendleft((pair, None, slower))
                self._changed.notify_all()
        return True

    def _give_up(self, name: TableName, reason: str) -> None:
        with self._lock:
            self._outcome.unproven[name] = reason

    def _prove(
        self, sides: Sides, pair: Pair, unit: Unit, hashing: Hashing, point: Aligned
    ) -> None:
        name = pair.source.name
        slicer = Slicer(pair, unit.by, hashing)
        here, there = digest(
            sides, pair, slicer, hashing, unit, point, self._options.sizes.piece_blocks, self._rest
        )
        reach("reconcile.digested")
        look = Look(sides, pair, slicer, hashing, point, self._options.values)
        found: list[RowDifference] = []
        more = False
        wrong = unequal(here, there)
        for bucket in wrong:
            self._check()
            count = max(here.get(bucket, NOTHING).rows, there.get(bucket, NOTHING).rows)
            for one in narrow.differences(look, unit.chunk(bucket), count):
                more = self._named[name] + len(found) >= self._options.most
                if more:
                    break
                found.append(one)
            if more:
                break
        if wrong and not found and not more:
            raise HashesDisagree(str(name))
        with self._lock:
            if self._hashing[name] is not hashing:
                return
            with speaking("target", "writing down what was compared"):
                fresh = reconcile.finish(
                    self._control,
                    self._run.id,
                    _part(unit),
                    rows(here),
                    found,
                    more,
                    point.at,
                    point.sees,
                )
            reach("reconcile.written")
            if fresh:
                self._named[name] += len(found)
                self._left[name] -= 1
                self._done[name] += unit.weight
                self._outcome.values.extend(one for one in found if one.values)
            self._observe(self._progress())

    def _progress(self) -> Progress:
        return Progress(
            tables=len(self._pairs),
            tables_done=sum(not self._left[name] for name in self._pairs),
            rows=sum(self._weight.values()),
            rows_done=sum(self._done.values()),
            differences=sum(self._named.values()),
        )

    def _check(self) -> None:
        if self._stop.is_set() or (self._until is not None and time.monotonic() > self._until):
            raise _Stopped

    def _rest(self, worked: float) -> None:
        """Leave the rest of the time to others, after a statement that took so many seconds."""
        if self._options.share < 1.0:
            self._stop.wait(worked * (1.0 / self._options.share - 1.0))
        self._check()


def conclude(
    control: psycopg.Connection, run: Run, pairs: Iterable[TableName], outcome: Outcome
) -> RunState:
    """Write the end of a run down: what is gone, and whether both sides are equal.

    Args:
        pairs: the tables that could be compared at all.
    """
    known = {one.table: one for one in reconcile.proven(control, run.id)}
    whole = [
        name
        for name in pairs
        if name in known and known[name].planned == known[name].done and not known[name].more
    ]
    with speaking("target", "writing down what was compared"), control.transaction():
        if run.mode == "full":
            for name in whole:
                differences.gone(control, run.id, name)
        standing = differences.standing(control, run.tables)
        open_ones = [one for one in standing if one.state == "open"]
        if not outcome.finished or outcome.unproven:
            state = RunState.STOPPED
        elif open_ones or len(whole) < len(run.tables):
            state = RunState.DIFFERS
        else:
            state = RunState.EQUAL
        reconcile.end(control, run.id, state)
    return state


def _unit(part: Part) -> Unit:
    return Unit(
        part.table,
        part.number,
        part.ordered_by,
        Range(part.low, part.high),
        part.bounds,
        part.weight,
    )


def _part(unit: Unit) -> Part:
    return Part(
        unit.table,
        unit.number,
        unit.by,
        unit.range.low,
        unit.range.high,
        unit.bounds,
        unit.weight,
    )
