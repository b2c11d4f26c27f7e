"""Write whole tables anew from the source while the stream runs: one range at each alignment point.

Between two ranges the stream goes on; at a point it waits for as long as one range takes to be
written. A range is proven equal at its point before the table is called rebuilt. What was written
is written down with it, so a rebuild that was killed goes on behind its last range.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from shlex import quote

import psycopg
from psycopg import sql

from cdc_migrator.control import differences, rebuilds
from cdc_migrator.control.rebuilds import Known, RebuildState, Written
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.errors import ConfigurationError, Failed, Refused
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.alignment import Aligned, Aligner, Rebuild
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile import expressions, probe
from cdc_migrator.reconcile.chunks import Slicer
from cdc_migrator.reconcile.expressions import Hashing
from cdc_migrator.reconcile.narrow import Look
from cdc_migrator.reconcile.pairs import Pair, Unpaired, only, pairs_of
from cdc_migrator.reconcile.ranges import in_common_order, next_bound
from cdc_migrator.reconcile.rebuild import equal
from cdc_migrator.reconcile.snapshot import Sides, SnapshotLost, TableMoved
from cdc_migrator.service.reconcile import ReconcileOptions, both, streams, tables_of

_ATTEMPTS = 5
_WRITES = 3
_PAUSE_SECONDS = 0.5
_ROW_BYTES = 100  # a guess, where the table was never analyzed
Key = tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class RebuildOptions:
    """How tables are rebuilt.

    Attributes:
        low, high: only keys from `low` on and below `high`, of the only table; None: open.
        restart: from the beginning, also where a rebuild was killed on its way.
        dry_run: only say what would be done.
        range_rows, range_bytes: what is written at one point at most, about.
        whole_bytes: of a table without an ordered key, which is written at one point.
    """

    low: Key = None
    high: Key = None
    restart: bool = False
    dry_run: bool = False
    range_rows: int = 30_000
    range_bytes: int = 16 << 20
    whole_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was done to one table, or what would be.

    Attributes:
        ranges: so many points it took, or about so many it would take.
        rows_before, rows_after: on the target, in the ranges as they were written; of a dry run
            the source's estimate.
        since: the oldest moment of its proof; None: a dry run.
        resumed: it went on where another process had left it.
    """

    table: TableName
    ranges: int
    rows_before: int
    rows_after: int
    since: datetime | None
    resumed: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a table is; `rows` as far as they were estimated."""

    table: TableName
    rows: int
    rows_done: int
    ranges_done: int


def run(
    options: ReconcileOptions,
    how: RebuildOptions,
    aligner: Aligner,
    observe: Callable[[Progress], None] = lambda _: None,
) -> list[Rebuilt]:
    """Rebuild the tables that `options` chooses, one after the other.

    Args:
        aligner: where alignment points come from; the caller closes it.

    Raises:
        ConfigurationError: CDCM-RECONCILE-TABLES, CDCM-REBUILD-KEY.
        Refused: CDCM-REBUILD-LARGE, CDCM-REBUILD-OTHER, CDCM-RECONCILE-UNPAIRED, -REPAIR,
            CDCM-MIGRATION-MISSING, CDCM-RECONCILE-RUNNING.
        Failed: CDCM-REBUILD-DIFFERS, CDCM-RECONCILE-UNSEEN.
        MigratorError: a database or the alignment failed. What was written stays so, and the same
            call goes on behind it.
    """
    with both(options) as (source, target):
        with speaking("source", "reading its tables"):
            pairs = _pairs(options, source, target)
            hashing = probe.agree(source, target)
            ordered = {n: in_common_order(source, target, pair) for n, pair in pairs.items()}
            for pair in pairs.values():
                _check(source, pair, how, ordered[pair.source.name], len(pairs))
        if how.dry_run:
            return [_planned(pair, how, ordered[name]) for name, pair in pairs.items()]
        begun = [(pair, *_begin(target, pair, how)) for pair in pairs.values()]
        with Sides(options.source_dsn, options.target_dsn, options.called) as sides:
            work = _Work(sides, aligner, source, target, how, hashing, observe)
            try:
                return [
                    work.table(pair, known, resumed, ordered[pair.source.name])
                    for pair, known, resumed in begun
                ]
            finally:
                aligner.release()


def _pairs(
    options: ReconcileOptions, source: psycopg.Connection, target: psycopg.Connection
) -> Mapping[TableName, Pair]:
    tables = tables_of(options, target)
    reasons = {name: "it is not loaded yet" for name, one in tables.items() if not streams(one)}
    looked = pairs_of(source, target, tables.values())
    reasons |= {one.table: one.reason for one in looked if isinstance(one, Unpaired)}
    for name, reason in reasons.items():
        raise Refused(
            "CDCM-RECONCILE-UNPAIRED",
            f"{name} cannot be rebuilt: {reason}",
            "`cdc-migrator status` and `cdc-migrator schema diff` show what is wrong with it.",
        )
    return only(looked)


def _check(
    source: psycopg.Connection, pair: Pair, how: RebuildOptions, ordered: bool, tables: int
) -> None:
    """Raise where the table cannot be rebuilt as it is wanted."""
    if pair.returns:
        raise Refused(
            "CDCM-WAY-BACK-REBUILD",
            f"rows of {pair.source.name} come back to a table that has more than they carry, and "
            "writing it anew would lose the rest",
            "`cdc-migrator reconcile --repair` writes row by row what differs, and keeps the rest.",
        )
    for key in (how.low, how.high):
        if key is not None:
            _check_key(source, pair, key, ordered, tables)
    if not ordered and pair.source.bytes > how.whole_bytes:
        raise Refused(
            "CDCM-REBUILD-LARGE",
            f"{pair.source.name} has no key that both servers put into the same order, so all of "
            f"it would be written at once, and it has {pair.source.bytes >> 20} MiB",
            "Stop `cdc-migrator run`, read the table again "
            f"(`cdc-migrator backfill --again {quote(str(pair.source.name))}`), and start it.",
        )


def _check_key(
    source: psycopg.Connection, pair: Pair, key: Sequence[str], ordered: bool, tables: int
) -> None:
    wrong = ""
    if tables > 1:
        wrong = "a range of keys belongs to one table, and several are chosen"
    elif not ordered:
        wrong = f"{pair.source.name} has no key that both servers put into the same order"
    elif len(key) != len(pair.key):
        wrong = f"the key of {pair.source.name} has {len(pair.key)} columns"
    else:
        typed = (
            sql.SQL("{}::{}").format(sql.Literal(text), expressions.bare_type(column.source))
            for column, text in zip(pair.key, key, strict=True)
        )
        try:
            source.execute(sql.SQL("SELECT {}").format(sql.SQL(", ").join(typed)))
        except psycopg.DataError:
            wrong = "a value cannot be read as one of the key's type"
    if wrong:
        raise ConfigurationError(
            "CDCM-REBUILD-KEY",
            f"the range of keys cannot be used: {wrong}",
            "Give --from and --to once for each column of the key, in its order, or leave them "
            "out to rebuild the whole table.",
        )


def _begin(target: psycopg.Connection, pair: Pair, how: RebuildOptions) -> tuple[Known, bool]:
    """The rebuild that is gone on with or begun, and whether it is an old one."""
    name = pair.source.name
    with speaking("target", "writing down what is rebuilt"):
        there = None if how.restart else rebuilds.running(target, name)
        if there is None:
            return rebuilds.begin(target, name, how.low, how.high), False
    if (there.low, there.high) != (how.low, how.high):
        raise Refused(
            "CDCM-REBUILD-OTHER",
            f"another range of {name} is being rebuilt since {there.started_at:%Y-%m-%d %H:%M}",
            "Type the command with the same --from and --to to go on with it, or with --restart "
            "to give it up.",
        )
    return there, True


def _planned(pair: Pair, how: RebuildOptions, ordered: bool) -> Rebuilt:
    rows = pair.source.estimated_rows
    ranges = max(1, -(-rows // _range_rows(pair, how))) if ordered else 1
    return Rebuilt(pair.source.name, ranges, rows, rows, None, False)


def _range_rows(pair: Pair, how: RebuildOptions) -> int:
    rows = pair.source.estimated_rows or pair.source.bytes // _ROW_BYTES
    width = pair.source.bytes // max(rows, 1)
    return max(100, min(how.range_rows, how.range_bytes // max(width, 1)))


@dataclass(frozen=True, slots=True)
class _Work:
    """What rebuilding needs; `source` and `target` belong to this thread alone."""

    sides: Sides
    aligner: Aligner
    source: psycopg.Connection
    target: psycopg.Connection
    how: RebuildOptions
    hashing: Hashing
    observe: Callable[[Progress], None]

    def table(self, pair: Pair, known: Known, resumed: bool, ordered: bool) -> Rebuilt:
        """Write what is missing of a table, and prove it."""
        writes: Counter[int] = Counter()
        moved = 0
        again: list[Rebuild] = []
        while True:
            written = self._written(known)
            self.observe(_progress(pair, written))
            wanted = again[0] if again else self._next(pair, known, written, ordered)
            if wanted is None and all(one.proven_at for one in written):
                return self._done(known, written, resumed)
            if wanted is not None:
                writes[wanted.number] += 1
            again = []
            try:
                aligned = self._aligned(wanted)
                unproven = [one.range for one in self._written(known) if one.proven_at is None]
                again = [one for one in unproven if not self._proven(pair, one, aligned)]
                moved = 0
            except (SnapshotLost, TableMoved) as exc:
                moved += 1
                if moved == _ATTEMPTS:
                    raise Failed(
                        "CDCM-RECONCILE-UNSEEN",
                        f"{known.table} is truncated, rewritten or locked again and again",
                        "Run the same command again when it is at rest.",
                    ) from exc
                time.sleep(_PAUSE_SECONDS)
            if any(writes[one.number] >= _WRITES for one in again):
                raise Failed(
                    "CDCM-REBUILD-DIFFERS",
                    f"a range of {known.table} was written anew and is still not equal",
                    "Look for somebody else who writes to the target's table, and for triggers or "
                    "rules there (ENABLE ALWAYS or REPLICA ones fire); then run the same command "
                    "again.",
                )

    def _aligned(self, wanted: Rebuild | None) -> Aligned:
        """A point at which that range was written. Raises TableMoved where it could not be read."""
        try:
            aligned = self.aligner.align(rebuild=wanted)
        except Failed as error:
            if error.code != "CDCM-RECONCILE-UNSEEN":
                raise
            raise TableMoved from error
        reach("rebuild.answered")
        return aligned

    def _proven(self, pair: Pair, one: Rebuild, aligned: Aligned) -> bool:
        """Look at a range; write it down where both sides are equal in it."""
        look = Look(self.sides, pair, Slicer(pair, None, self.hashing), self.hashing, aligned)
        if not equal(look, one):
            return False
        with speaking("target", "writing down what was rebuilt"):
            rebuilds.proven(self.target, one, aligned.at)
        reach("rebuild.proven")
        return True

    def _written(self, known: Known) -> list[Written]:
        with speaking("target", "reading what was rebuilt"):
            return rebuilds.ranges(self.target, known)

    def _next(
        self, pair: Pair, known: Known, written: Sequence[Written], ordered: bool
    ) -> Rebuild | None:
        """The range behind those that are written; None where that was the last one."""
        if written and written[-1].range.high == known.high:
            return None
        low = written[-1].range.high if written else known.low
        high = known.high
        if ordered:
            with speaking("source", f"reading the keys of {known.table}"):
                rows = _range_rows(pair, self.how)
                high = next_bound(self.source, self.target, pair, low, high, rows)
        return Rebuild(known.table, known.id, len(written), low, high)

    def _done(self, known: Known, written: Sequence[Written], resumed: bool) -> Rebuilt:
        since = min(one.proven_at for one in written if one.proven_at is not None)
        with speaking("target", "writing down what was rebuilt"), self.target.transaction():
            rebuilds.end(self.target, known.id, RebuildState.DONE)
            if known.low is None and known.high is None:
                standing = differences.standing(self.target, [known.table])
                old = [one.id for one in standing if one.last_seen < since]
                differences.repaired(self.target, old, since)
        return Rebuilt(
            known.table,
            len(written),
            sum(one.rows_before for one in written),
            sum(one.rows_after for one in written),
            since,
            resumed,
        )


def _progress(pair: Pair, written: Sequence[Written]) -> Progress:
    rows = sum(one.rows_after for one in written)
    return Progress(pair.source.name, max(pair.source.estimated_rows, rows), rows, len(written))
