"""One pass: all tables of a run are planned, digested and, where they differ, looked into.

Workers take tables and units from one list, each with one session on either side. A unit that is
proven is journalled with its differences and its moment, and never read again in this run. What
could not be read at a point (its snapshot was lost, the table truncated or rewritten) is read again
at a later one, and never reported.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext

import psycopg

from cdc_migrator.control import proofs, reconcile
from cdc_migrator.control.proofs import Due, Map, Proof
from cdc_migrator.control.reconcile import Part, Run
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.errors import MigratorError
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.alignment import Aligned, Aligner
from cdc_migrator.model.differences import RowDifference
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile import narrow
from cdc_migrator.reconcile.again import attempts
from cdc_migrator.reconcile.agenda import (
    ByRank,
    Kept,
    keep,
    numbered,
    part_of,
    unit_of,
    units_by_rank,
)
from cdc_migrator.reconcile.chunks import Slicer, Unit
from cdc_migrator.reconcile.digest import NOTHING, by_chunk, digest, rows, unequal
from cdc_migrator.reconcile.expressions import Hashing
from cdc_migrator.reconcile.jobs import NEEDED, TO_PLAN, Job, Jobs
from cdc_migrator.reconcile.narrow import HashesDisagree, Look
from cdc_migrator.reconcile.options import Outcome, PassOptions, Progress
from cdc_migrator.reconcile.pace import Pace
from cdc_migrator.reconcile.pairs import Pair
from cdc_migrator.reconcile.planning import lay_out, sample
from cdc_migrator.reconcile.points import Points
from cdc_migrator.reconcile.snapshot import Sides, SnapshotLost, TableMoved

_LOST_AT_MOST = 5
_TOO_EARLY = 2  # points that may lie before a table's new chunks are marked


class _Stopped(Exception):
    """The pass was told to stop, or its time is up."""


class _TooEarly(Exception):
    """The point lies before who applies began to mark these chunks: no proof would stand."""


class Pass:
    """One process's work on a run. Use it once.

    Args:
        control: a session on the target for the journal; the pass alone uses it meanwhile.
        due: the chunks that are to be read, of tables whose chunks stay as they were; of other
            tables, and where None, all are.
        observe: called now and then, by any worker.
        opened: sessions for workers that are there already, and stay.
        kept: the chunks that earlier passes found, of the same pairs, and this one will have
            found: what is due of them is planned without looking at their tables again.
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
        due: Mapping[TableName, Sequence[Due]] | None = None,
        opened: Sequence[Sides] = (),
        kept: dict[TableName, Kept] | None = None,
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
        self._due = due
        self._maps: dict[TableName, Map] = {}
        self._kept = {} if kept is None else kept
        self._first_hashing = hashing
        self._jobs = Jobs()
        self._opened = list(opened)
        self._open: set[Sides] = set()
        self._early: Counter[int] = Counter()
        self._made: set[int] = set()
        self._stop = threading.Event()
        self._until: float | None = None
        self._pace = Pace(control, self._lock, options, self._stop)
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
            wanted = self._workers()
            with ThreadPoolExecutor(wanted, "reconcile") as pool:
                workers = [pool.submit(self._work) for _ in range(wanted)]
                try:
                    wait(workers)
                finally:
                    self.stop()
            for worker in workers:
                worker.result()
        finally:
            self._points.release()
        finished = not any(self._left.values()) and self._jobs.over
        return Outcome(finished, self._outcome.unproven, self._outcome.values)

    def stop(self, at_once: bool = False) -> None:
        """Let the workers end after the statement that they are at, or break it off."""
        self._stop.set()
        self._jobs.stop()
        with self._lock:
            working = list(self._open) if at_once else []
        for sides in working:
            sides.cancel()

    def _workers(self) -> int:
        """No more than there are chunks to read, where that is known."""
        if self._due is None or any(name not in self._due for name in self._pairs):
            return self._options.workers
        return max(1, min(self._options.workers, sum(map(len, self._due.values()))))

    def _sides(self) -> AbstractContextManager[Sides]:
        with self._lock:
            if self._opened:
                return nullcontext(self._opened.pop())
        return Sides(*self._ends, self._called)

    def _begin(self) -> None:
        planned: dict[TableName, list[Part]] = {}
        with speaking("target", "reading what was compared"):
            for part in reconcile.parts(self._control, self._run.id):
                planned.setdefault(part.table, []).append(part)
            for known in reconcile.proven(self._control, self._run.id):
                self._named[known.table] = known.differences
            self._maps = {one.table: one for one in proofs.maps(self._control)}
        ahead: dict[TableName, ByRank] = {}
        for name, pair in sorted(self._pairs.items(), key=lambda item: -item[1].source.bytes):
            hashing = self._hashing[name]
            there = self._kept.get(name)
            still = there and there.still(self._maps.get(name))
            if name not in planned and still and self._due is not None:
                ahead[name] = units_by_rank(
                    name, still, self._due.get(name, ()), self._options.sizes
                )
                continue
            if name not in planned:
                self._weight[name] = pair.source.estimated_rows
                self._left[name] = 1
                self._jobs.add(TO_PLAN, Job(pair, None, hashing))
                continue
            for part in planned[name]:
                self._weight[name] += part.weight
                if part.done:
                    self._done[name] += part.weight
                else:
                    self._left[name] += 1
                    self._jobs.add(NEEDED, Job(pair, unit_of(part), hashing))
        self._planned(ahead, self._first_hashing)

    def _work(self) -> None:
        try:
            with self._sides() as sides:
                with self._lock:
                    self._open.add(sides)
                try:
                    while (job := self._jobs.take()) is not None:
                        try:
                            self._do(sides, job)
                        finally:
                            self._jobs.done()
                finally:
                    with self._lock:
                        self._open.discard(sides)
        except _Stopped:
            pass
        except MigratorError:
            # A statement that was broken off is no failure.
            if not self._stop.is_set():
                raise
        finally:
            if not self._jobs.over:
                self.stop()

    def _do(self, sides: Sides, job: Job) -> None:
        pair, unit, hashing = job.pair, job.unit, job.hashing
        name = pair.source.name
        point: Aligned | None = None
        reason = ""
        lost = 0
        for _ in attempts(self._stop.wait):
            self._check()
            with self._lock:
                if self._hashing[name] is not hashing or name in self._outcome.unproven:
                    return  # the table is planned anew, or given up
            point = self._points.current() if point is None else self._points.after(point)
            try:
                if unit is None:
                    began = time.monotonic()
                    self._plan(sides, pair, hashing, point)
                    self._pace.resting(self._check)(time.monotonic() - began)
                else:
                    self._prove(sides, pair, unit, hashing, point)
                return
            except _TooEarly:
                reason = ""
            except TableMoved:
                reason = "it is truncated, rewritten or locked again and again"
            except SnapshotLost:
                reason = "no alignment point lived long enough to read it"
                lost += 1
                if lost == _LOST_AT_MOST:
                    break
            except HashesDisagree:
                if self._plan_anew(pair, hashing):
                    return
                reason = "its digests differ, and none of its rows does"
                break
        self._give_up(name, reason)

    def _plan(self, sides: Sides, pair: Pair, hashing: Hashing, point: Aligned) -> None:
        name, sizes = pair.source.name, self._options.sizes
        if self._run.mode == "sample":
            self._planned({name: {NEEDED: sample(sides, pair, hashing, point, sizes)}}, hashing)
            return
        found = lay_out(sides, pair, hashing, point, sizes, self._maps.get(name))
        with self._lock, speaking("target", "writing down what is compared"):
            kept = keep(self._control, name, self._maps.get(name), found)
            if kept.changed:
                self._made.add(kept.id)
                self._maps.pop(name, None)
            if hashing is self._first_hashing:
                self._kept[name] = kept
        due = None if self._due is None else self._due.get(name, ())
        self._planned({name: units_by_rank(name, kept, due, sizes)}, hashing)

    def _planned(self, tables: Mapping[TableName, ByRank], hashing: Hashing) -> None:
        """Write the units down, all of a table at once, and have them proven."""
        if not tables:
            return
        made = {name: numbered(units) for name, units in tables.items()}
        with self._lock:
            with speaking("target", "writing down what is compared"):
                parts = {name: [part_of(one) for _, one in of] for name, of in made.items()}
                reconcile.plan(self._control, self._run.id, parts)
            reach("reconcile.planned")
            for name, units in made.items():
                self._weight[name] = sum(one.weight for _, one in units)
                self._done[name] = 0
                self._left[name] = len(units)
                for rank, one in units:
                    self._jobs.add(rank, Job(self._pairs[name], one, hashing))

    def _plan_anew(self, pair: Pair, hashing: Hashing) -> bool:
        """Compare the whole table in a safer way; False if there is none."""
        slower = hashing.slower()
        if slower == hashing:
            return False
        with self._lock:
            if self._hashing[pair.source.name] is hashing:
                self._hashing[pair.source.name] = slower
                self._named[pair.source.name] = 0
                self._left[pair.source.name] = 1
                self._jobs.add(TO_PLAN, Job(pair, None, slower))
        return True

    def _give_up(self, name: TableName, reason: str) -> None:
        with self._lock:
            self._outcome.unproven[name] = reason

    def _prove(
        self, sides: Sides, pair: Pair, unit: Unit, hashing: Hashing, point: Aligned
    ) -> None:
        name = pair.source.name
        marks = self._marks(sides, pair, unit, point)
        slicer = Slicer(pair, unit.by, hashing)
        here, there = digest(
            sides,
            pair,
            slicer,
            hashing,
            unit,
            point,
            self._options.sizes.piece_blocks,
            self._pace.resting(self._check),
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
        proof = None
        if unit.map is not None and marks is not None:
            proof = Proof(unit.map, marks, by_chunk(unit, here, wrong))
        with self._lock:
            if self._hashing[name] is not hashing:
                return
            with speaking("target", "writing down what was compared"):
                fresh = reconcile.finish(
                    self._control,
                    self._run.id,
                    part_of(unit),
                    rows(here),
                    found,
                    more,
                    point.at,
                    point.sees,
                    proof,
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

    def _marks(
        self, sides: Sides, pair: Pair, unit: Unit, point: Aligned
    ) -> tuple[int, ...] | None:
        """The marks on a unit's chunks at a point; None where no proof of them would stand.

        Raises _TooEarly where one of a later point would.
        """
        if unit.map is None:
            return None
        found = sides.read(pair, point, proofs.seen(unit.map, unit.mapped), True)
        if found and found[0][0]:
            return tuple(found[0][1])
        with self._lock:
            # Where the service does not mark at all, other tables need not wait for it either.
            waiting = unit.map in self._made and max(self._early.values(), default=0) < _TOO_EARLY
            self._early[unit.map] += 1
        if waiting:
            raise _TooEarly
        return None
