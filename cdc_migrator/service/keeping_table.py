"""One table that keeps its rows, on its way to a snapshot of the source: range by range of its key.

A range whose digests are equal on both sides is written down and done. In any other the rows that
differ are written as the snapshot has them, or all of it, and it is compared again.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

import psycopg
from psycopg import sql

from cdc_migrator.backfill.snapshot import Snapshot
from cdc_migrator.control import anew, rebuilds
from cdc_migrator.control.rebuilds import Known, RebuildState
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.exported import export
from cdc_migrator.errors import Failed
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.alignment import Aligned, Rebuild, Repair
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile import narrow, ranges, repair
from cdc_migrator.reconcile.chunks import Slicer
from cdc_migrator.reconcile.digest import NOTHING, Digest, add, grouped
from cdc_migrator.reconcile.expressions import Hashing
from cdc_migrator.reconcile.narrow import HashesDisagree, Look
from cdc_migrator.reconcile.pairs import Pair
from cdc_migrator.reconcile.ranges import in_common_order, next_bound
from cdc_migrator.reconcile.rebuild import RangeWriter
from cdc_migrator.reconcile.snapshot import Sides, reading

_RANGE_ROWS = 50_000
_RANGE_BYTES = 16 << 20
_ROW_BYTES = 100  # a guess, where the table was never analyzed
_WRITES = 5  # with those that only find that the servers hash unlike each other
# So many rows of a range are written one by one. A table without an order has one range only,
# and writing all of it anew costs more.
_FEW = 2_000
_MANY = 100_000
_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Kept:
    """What came of one table: its ranges, those of them that this process wrote to, its rows."""

    table: TableName
    ranges: int
    written: int
    rows: int


class Ending(Exception):
    """Another table's work has failed; this one's is left where it is."""


@dataclass(frozen=True, slots=True)
class Base:
    """The source's snapshot that tables are brought to, and a position past what it sees."""

    snapshot: Snapshot
    until: str


class TableKeeping:
    """One table on its way to the snapshot; every session here belongs to one thread.

    Args:
        sides: compare. source: reads under the snapshot, in an open transaction. target: writes.
        still: keeps the target as it is at the moment of a comparison.
    """

    def __init__(
        self,
        sides: Sides,
        source: psycopg.Connection,
        target: psycopg.Connection,
        still: psycopg.Connection,
        pair: Pair,
        base: Base,
        hashing: Hashing,
        ending: threading.Event,
    ) -> None:
        self._sides = sides
        self._source = source
        self._target = target
        self._still = still
        self._pair = pair
        self._base = base
        self._hashing = hashing
        self._ending = ending
        self._ordered = in_common_order(sides.source, sides.target, pair)

    def table(self) -> Kept:
        """Every range that is left.

        Raises SnapshotLost, TableMoved: it must be brought to another snapshot; MigratorError.
        """
        name = self._pair.source.name
        known = self._begin()
        with speaking("target", "reading what is done"):
            done = rebuilds.ranges(self._target, known)
        written = 0
        low = done[-1].range.high if done else None
        number, rows = len(done), sum(one.rows_after for one in done)
        over = bool(done) and low is None
        while not over:
            if self._ending.is_set():
                raise Ending
            high = None
            if self._ordered:
                with speaking("source", f"reading the keys of {name}"):
                    high = next_bound(
                        self._sides.source, self._sides.target, self._pair, low, None, self._size()
                    )
            changed, of_range = self._range(Rebuild(name, known.id, number, low, high))
            written += changed
            rows += of_range
            number, low, over = number + 1, high, high is None
        with speaking("target", "writing down what is done"), self._target.transaction():
            anew.done(self._target, name, rows)
            rebuilds.end(self._target, known.id, RebuildState.DONE)
        reach("keep.table")
        return Kept(name, number, written, rows)

    def _begin(self) -> Known:
        """What is gone on with, or begun because the table is brought to another snapshot."""
        name, base = self._pair.source.name, self._base
        with speaking("target", "writing down what is begun"), self._target.transaction():
            anew.alone(self._target, name)
            begun = anew.enter(self._target, name, base.snapshot.sees, base.until)
            there = None if begun else rebuilds.running(self._target, name)
            return there or rebuilds.begin(self._target, name, None, None)

    def _size(self) -> int:
        of = self._pair.source
        rows = of.estimated_rows if of.estimated_rows > 0 else of.bytes // _ROW_BYTES
        width = of.bytes // max(rows, 1)
        return max(1_000, min(_RANGE_ROWS, _RANGE_BYTES // max(width, 1)))

    def _range(self, part: Rebuild) -> tuple[bool, int]:
        """Make a range equal: whether it was written to, and its rows."""
        for written in range(_WRITES + 1):
            look = self._look()
            here, there = self._digests(look, part)
            if here == there:
                break
            if written == _WRITES:
                raise Failed(
                    "CDCM-REBUILD-DIFFERS",
                    f"a range of {part.table} was written anew and is still not equal",
                    "Look for somebody else who writes to the target's table, and for triggers or "
                    "rules there (ENABLE ALWAYS or REPLICA ones fire); then run the same command "
                    "again.",
                )
            self._write(look, part, here.rows, there.rows)
            reach("keep.written")
        with speaking("target", "writing down what is done"), self._target.transaction():
            anew.alone(self._target, part.table)
            rebuilds.write(self._target, part, there.rows, here.rows)
            rebuilds.proven(self._target, part, datetime.now(UTC))
        reach("keep.range")
        return written > 0, here.rows

    def _look(self) -> Look:
        """The source at the snapshot and the target as it is now."""
        with speaking("target", "taking a snapshot"):
            self._still.execute("ROLLBACK")
            _, target = export(self._still)
        aligned = Aligned(
            self._base.snapshot.name, target, self._base.snapshot.sees, datetime.now(UTC)
        )
        slicer = Slicer(self._pair, None, self._hashing)
        return Look(self._sides, self._pair, slicer, self._hashing, aligned)

    def _digests(self, look: Look, part: Rebuild) -> tuple[Digest, Digest]:
        def of_side(target: bool) -> Digest:
            condition = ranges.within(look.pair, part.low, part.high, target)
            found: dict[int | None, Digest] = {}
            query = grouped(look.pair, look.hashing, target, sql.SQL("0"), condition)
            add(look.read(query, target, look.those(condition)), found)
            return found.get(0, NOTHING)

        return look.sides.both(of_side)

    def _write(self, look: Look, part: Rebuild, here: int, there: int) -> None:
        few = _FEW if self._ordered else _MANY

        def within(target: bool) -> sql.Composable:
            return ranges.within(look.pair, part.low, part.high, target)

        try:
            wrong = list(islice(narrow.differing(look, within, max(here, there)), few + 1))
        except HashesDisagree:
            self._hashing = look.hashing.slower()
            return
        if len(wrong) > few:
            self._write_anew(part)
            return
        keys = [tuple(one.key.values()) for one in wrong]
        for start in range(0, len(keys), _AT_ONCE):
            some = Repair(part.table, tuple(keys[start : start + _AT_ONCE]))
            with speaking("target", f"writing to {part.table}"), self._target.transaction():
                anew.alone(self._target, part.table)
                # Ends the target's transaction where the snapshot shows nothing of it any more.
                with reading(self._source, self._pair.relation(False)):
                    repair.write(self._source, self._target, self._pair, some)

    def _write_anew(self, part: Rebuild) -> None:
        with RangeWriter(self._pair, part) as writer:
            writer.read(self._source)
            with speaking("target", f"writing to {part.table}"), self._target.transaction():
                anew.alone(self._target, part.table)
                writer.write(self._source, self._target)
