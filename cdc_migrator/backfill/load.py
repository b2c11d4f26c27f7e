"""Load the tables: plan their chunks once, have workers copy them, begin lost ones anew.

Works in rounds. Each round sees which snapshot every unfinished table can be read under, empties
and re-plans those that have none any more, and lets the workers copy all chunks that are left. A
round ends when they are done, or when a worker finds a snapshot lost; then the next one sees to
it. Any process may be killed at any time: the next load begins with a round of its own.

A table that is read anew sees transactions that the stream will bring as well. Its snapshot is
stored for the applier, which leaves those out (`control.load.TableLoad.reread_snapshot`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import psycopg

from cdc_migrator.backfill import chunks
from cdc_migrator.backfill.columns import Passage, passage
from cdc_migrator.backfill.emptied import empty, require_claimed, require_empty
from cdc_migrator.backfill.progress import LoadProgress, Meter
from cdc_migrator.backfill.reading import Job
from cdc_migrator.backfill.snapshot import HeldSnapshot, Snapshot, still
from cdc_migrator.backfill.throttle import Throttle, ThrottleOptions
from cdc_migrator.backfill.workers import Workers
from cdc_migrator.control import access, fence, locks, migration, shapes
from cdc_migrator.control import load as rows
from cdc_migrator.control.load import TableLoad
from cdc_migrator.databases.postgres import catalog
from cdc_migrator.databases.postgres import names as quoted
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.grants import named
from cdc_migrator.errors import Failed, Refused
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.naming import Names
from cdc_migrator.model.tables import TableName


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How tables are loaded.

    Attributes:
        workers: chunks copied at a time; each has one session on either side.
        chunk_bytes: of the source's table (with TOAST) in one chunk and one transaction.
        freeze_bytes: a table up to this size is one chunk, and frozen. Not where the load is held
            back: there a chunk lasts long, and a kill should not cost so much.
        attempts: how often one table may be begun anew within one call of `load`.
        patience: seconds for which a server may be away before the load gives up.
        throttle: what the load may cost.
        fence: nobody but this migration may write to the target's tables, from before their
            first row.
    """

    workers: int = 3
    chunk_bytes: int = chunks.CHUNK_BYTES
    freeze_bytes: int = chunks.WHOLE_BYTES
    attempts: int = 5
    patience: float = 300.0
    throttle: ThrottleOptions = field(default_factory=ThrottleOptions)
    fence: bool = True


@dataclass(frozen=True, slots=True)
class Loaded:
    """All tables are loaded: rows and COPY bytes of them all, and which were read anew here.

    `tables` has each of them, the largest first; `seconds` are those of this call. `taken_off`
    were found without the fence that they had been given.
    """

    rows: int
    bytes: int
    seconds: float
    anew: tuple[TableName, ...]
    tables: tuple[TableLoad, ...] = ()
    taken_off: tuple[TableName, ...] = ()


def load(
    source_dsn: str,
    target_dsn: str,
    names: Names,
    options: LoadOptions | None = None,
    on_progress: Callable[[LoadProgress], None] = lambda _: None,
) -> Loaded:
    """Copy every registered table as it was at the slot's consistent point; resumes by itself.

    When all are loaded the migration's snapshot is given up, which lets its holder end.

    Args:
        on_progress: called from this thread about four times a second.

    Raises:
        Refused: CDCM-LOAD-RUNNING, CDCM-CAPTURE-MISSING, CDCM-CAPTURE-ANEW,
            CDCM-TARGET-NOT-EMPTY, CDCM-LOAD-TABLE, CDCM-LOAD-COLUMNS, CDCM-FENCE-OWNER.
        Failed: CDCM-LOAD-SNAPSHOTS, CDCM-LOAD-COUNT, CDCM-FENCE-LOCKED, or a server's error in
            coded form.
    """
    options = options or LoadOptions()
    began = time.monotonic()
    called = f"cdcm-{names.migration}-load"
    anew: dict[TableName, int] = {}
    held: dict[TableName, HeldSnapshot] = {}
    taken_off: set[TableName] = set()
    with ExitStack() as stack:
        while True:
            with (
                _control(login(target_dsn, Role.APPLY), called) as control,
                connect(
                    login(source_dsn, Role.VERIFY), application_name=called, side="source"
                ) as source,
            ):
                this = _Round(
                    source_dsn, target_dsn, called, names, options, source, control, held, stack
                )
                jobs = this.prepare(anew)
                taken_off.update(this.taken_off)
                if jobs is None:
                    return _finish(control, began, anew, taken_off)
                if not jobs:
                    continue
                with Throttle(options.throttle, source_dsn, called) as throttle:
                    workers = Workers(
                        source_dsn, target_dsn, called, options.patience, this.meter, throttle
                    )
                    workers.run(jobs, options.workers, on_progress)


@contextmanager
def _control(target_dsn: str, called: str) -> Iterator[psycopg.Connection]:
    """The session that makes this the only loader; it may write to fenced tables."""
    with connect(target_dsn, application_name=called, side="target") as control:
        with speaking("target", "taking the loader's lock"):
            if not locks.try_lock(control, locks.Role.LOAD):
                raise Refused(
                    "CDCM-LOAD-RUNNING",
                    "another process is loading this migration",
                    "Leave it to its work, or end it and run the same command again.",
                )
            fence.present(control)
        yield control


class _Round:
    """What one round has to do, worked out on two sessions before the workers start."""

    def __init__(
        self,
        source_dsn: str,
        target_dsn: str,
        called: str,
        names: Names,
        options: LoadOptions,
        source: psycopg.Connection,
        control: psycopg.Connection,
        held: dict[TableName, HeldSnapshot],
        stack: ExitStack,
    ) -> None:
        self._source_dsn = source_dsn
        self._target_dsn = target_dsn
        self._called = called
        self._names = names
        self._options = options
        self._source = source
        self._control = control
        self._held = held
        self._stack = stack
        self.meter = Meter(0, 0, 0, 0, 0, 0, 0)
        self.taken_off: tuple[TableName, ...] = ()

    def prepare(self, anew: dict[TableName, int]) -> list[Job] | None:
        """The chunks that are left, largest table first; None when all is loaded.

        An empty list says that every table that is left has lost its snapshot meanwhile.
        Counts in `anew` how often each table was begun anew.
        """
        with speaking("target", "reading the load's state"):
            first = self._first_snapshot()
            tables = rows.read_tables(self._control)
        if any(table.keeps for table in tables):
            raise Refused(
                "CDCM-CAPTURE-ANEW",
                "capture begins anew, and the tables keep their rows meanwhile",
                "Type `cdc-migrator migrate`, which goes on with it.",
            )
        unfinished = [table for table in tables if table.due]
        if not unfinished:
            return None
        ways = self._ways(unfinished)
        self._fence([table for table in unfinished if not table.planned])
        lost = [table for table in unfinished if self._snapshot(table, first) is None]
        if lost:
            self._begin_anew(lost, anew)
            with speaking("target", "reading the load's state"):
                tables = rows.read_tables(self._control)
            unfinished = [table for table in tables if table.due]
        self._plan([table for table in unfinished if not table.planned])
        with speaking("target", "reading the load's state"):
            left = rows.pending(self._control)
            done, total = rows.weights(self._control)
        self.meter = Meter(
            tables_done=len(tables) - len(unfinished),
            tables_total=len(tables),
            rows=sum(table.rows_loaded for table in tables),
            size=sum(table.bytes_loaded for table in tables),
            estimated_rows=sum(table.estimated_rows for table in tables),
            weight_done=done,
            weight_total=total,
        )
        by_name = {table.source: table for table in unfinished}
        jobs = []
        for chunk in left:
            table = by_name[chunk.table]
            snapshot = self._snapshot(table, first)
            if snapshot is not None:
                jobs.append(Job(chunk, ways[chunk.table], snapshot, table.source_filenode))
        return jobs

    def _fence(self, fresh: Sequence[TableLoad]) -> None:
        """Let nobody else write from now on. Whether the tables are empty is seen afterwards; but
        rows that are there already are refused while those whose they are can remove them."""
        with (
            # Only owners can fence a table, or let others write to it.
            connect(self._target_dsn, application_name=self._called, side="target") as owner,
            speaking("target", "fencing its tables"),
        ):
            access.give_rows(
                owner, named(self._target_dsn), sorted({table.target for table in fresh})
            )
            for table in fresh:
                require_empty(self._control, table.target, table.belongs)
            # Later ones are compared as any others: reading a table again need not wait for them,
            # nor a partition that comes where another one has gone.
            first = [one.target for one in fresh if not one.attempt and not _joins_others(one)]
            require_claimed(self._control, first)
            self.taken_off = fence.keep(owner, self._names.migration, self._options.fence)
            require_claimed(self._control, first)

    def _first_snapshot(self) -> Snapshot | None:
        """The snapshot of the slot's creation, if somebody still holds it."""
        there = migration.read(self._control)
        if there is None or there.consistent_point is None or there.names != self._names:
            raise Refused(
                "CDCM-CAPTURE-MISSING",
                "capture has not been started for this migration",
                "Run `cdc-migrator capture start` (or `cdc-migrator migrate`) first.",
            )
        with speaking("source", "looking for the load's snapshot"):
            return still(self._source, there.snapshot_name, there.snapshot)

    def _snapshot(self, table: TableLoad, first: Snapshot | None) -> Snapshot | None:
        """What a table can be read under now; None: it must be read anew."""
        if self._file(table.relation) != table.source_filenode:
            return None
        if table.reread_snapshot is None:
            # The first snapshot is older than the place of a table that was added later.
            return first if table.joining is None else None
        held = self._held.get(table.source)
        if held is None or held.snapshot.sees != table.reread_snapshot or not held.alive():
            return None
        return held.snapshot

    def _file(self, table: TableName) -> int | None:
        with speaking("source", "looking at the tables"):
            row = self._source.execute(
                "SELECT pg_relation_filenode(to_regclass(%s))::bigint",
                (quoted.table(table).as_string(self._source),),
            ).fetchone()
        return None if row is None else row[0]

    def _ways(self, tables: Sequence[TableLoad]) -> dict[TableName, Passage]:
        with speaking("source", "reading the catalog"):
            sources = {table.name: table for table in catalog.read_tables(self._source)}
        with speaking("target", "reading the catalog"):
            targets = catalog.read_targets(self._control)
        for side, name in [
            *(("source", table.relation) for table in tables if table.relation not in sources),
            *(("target", table.target) for table in tables if table.target not in targets),
        ]:
            raise Refused(
                "CDCM-LOAD-TABLE",
                f"the {side} has no table {name}",
                "Let `cdc-migrator schema` make the target's tables. A table that was dropped on "
                "the source needs an `abort` and a new start without it.",
            )
        return {
            table.source: passage(sources[table.relation], targets[table.target], table.route)
            for table in tables
        }

    def _begin_anew(self, tables: Sequence[TableLoad], anew: dict[TableName, int]) -> None:
        """Give tables a new snapshot of our own, and forget what was loaded of them."""
        # Noted before the snapshot: see `rows.register`.
        files = {table.source: self._file(table.relation) for table in tables}
        with speaking("source", "taking a new snapshot"):
            held = HeldSnapshot(self._source_dsn, self._called)
        self._stack.callback(held.close)
        for table in tables:
            name = table.source
            anew[name] = anew.get(name, 0) + 1
            file = files[name]
            if anew[name] > self._options.attempts or file is None:
                raise Failed(
                    "CDCM-LOAD-SNAPSHOTS",
                    f"{name} was begun anew {self._options.attempts} times and each time lost "
                    "its snapshot",
                    "See that the source stays up and that nothing truncates or rewrites the "
                    "table all the time, then run the same command again.",
                )
            with speaking("source", f"describing {name}"):
                described = held.describe(table.relation)
            with speaking("target", f"emptying {table.target}"), self._control.transaction():
                if not table.planned:
                    require_empty(self._control, table.target, table.belongs)
                rows.begin_anew(
                    self._control,
                    name,
                    held.snapshot.sees,
                    held.until,
                    file,
                    "its snapshot was lost" if table.attempt or not table.joining else "it is new",
                )
                shapes.note(self._control, [described] if described else [])
                empty(self._control, table.target, table.belongs)
            self._held[name] = held

    def _plan(self, tables: Sequence[TableLoad]) -> None:
        for table in tables:
            with speaking("source", f"measuring {table.source}"):
                row = self._source.execute(
                    "SELECT pg_relation_size(r) / current_setting('block_size')::int, "
                    "pg_table_size(r) FROM to_regclass(%s) r",
                    (quoted.table(table.relation).as_string(self._source),),
                ).fetchone()
            blocks, size = row if row and row[0] is not None else (0, 0)
            planned = chunks.plan(
                table.source,
                table.attempt,
                blocks,
                size,
                self._options.chunk_bytes,
                0 if self._options.throttle.holds_back else self._options.freeze_bytes,
            )
            with speaking("target", f"planning {table.target}"):
                require_empty(self._control, table.target, table.belongs)
                rows.plan(self._control, table.source, planned)


def _finish(
    control: psycopg.Connection,
    began: float,
    anew: dict[TableName, int],
    taken_off: set[TableName],
) -> Loaded:
    with speaking("target", "ending the load"):
        tables = rows.read_tables(control)
        there = migration.read(control)
        if there is not None and there.snapshot_name is not None:
            migration.update(
                control, "snapshot-released", snapshot_name=None, snapshot_holder_pid=None
            )
    return Loaded(
        rows=sum(table.rows_loaded for table in tables),
        bytes=sum(table.bytes_loaded for table in tables),
        seconds=time.monotonic() - began,
        anew=tuple(sorted(anew)),
        tables=tuple(sorted(tables, key=lambda table: -table.bytes_loaded)),
        taken_off=tuple(sorted(taken_off)),
    )


def _joins_others(one: TableLoad) -> bool:
    """Whether it is a partition that has come to the stream's others."""
    return one.joining is not None and one.route is not None and one.route.bound is not None
