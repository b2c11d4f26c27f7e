"""Compare the tables of one migration, and have repaired what differs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime

import psycopg

from cdc_migrator.control import differences, load, locks, migration, reconcile, schema
from cdc_migrator.control.differences import Known
from cdc_migrator.control.load import LoadState, TableLoad
from cdc_migrator.control.reconcile import Run
from cdc_migrator.databases.postgres.catalog import chosen
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import ConfigurationError, MigratorError, Refused
from cdc_migrator.model.alignment import Aligner, Repair
from cdc_migrator.model.differences import RowDifference
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile import mend, person, probe
from cdc_migrator.reconcile.pairs import Pair, Unpaired, only, read_pairs
from cdc_migrator.reconcile.passes import Outcome, Pass, PassOptions, Progress, conclude
from cdc_migrator.reconcile.snapshot import Sides
from cdc_migrator.service.alignment import RequestedAlignment


@dataclass(frozen=True, slots=True)
class ReconcileOptions:
    """Which migration, which of its tables, and what to do. The strings hold passwords.

    Attributes:
        tables: shell patterns over ``schema.table``; None: all.
        mode: ``full``, or ``sample``: some chunks of each table by chance.
        resume: go on with the run that was stopped or died.
        repair: write what differs anew. dry_run: only say what would be written.
    """

    name: str
    source_dsn: str
    target_dsn: str
    tables: Sequence[str] | None = None
    mode: str = "full"
    resume: bool = False
    repair: bool = False
    dry_run: bool = False
    work: PassOptions = field(default_factory=PassOptions)

    @property
    def called(self) -> str:
        return f"cdcm-{self.name}-reconcile"


@dataclass(frozen=True, slots=True)
class TableReport:
    """What is known of one table.

    Attributes:
        rows: on the source, as far as it was read.
        since: the oldest moment for which something in here is proven; None: nothing is.
        standing: differences that are open or accepted.
        more: there are more differences than were named.
        unproven: why it was not compared, or not to its end; None: it was.
        left_out: generated columns that are not compared.
    """

    table: TableName
    rows: int
    since: datetime | None
    standing: tuple[Known, ...]
    more: bool
    unproven: str | None
    left_out: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Proven, and nothing is open."""
        return (
            self.unproven is None
            and not self.more
            and all(one.state != "open" for one in self.standing)
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one comparison.

    Attributes:
        finished: False: its time was up; it can be resumed.
        planned: with `dry_run`: what would be repaired.
        repaired: differences that were written anew and seen equal.
        values: differences with their values, where they were asked for.
        seconds: of this process.
    """

    run: Run
    finished: bool
    tables: tuple[TableReport, ...]
    planned: tuple[Repair, ...]
    repaired: int
    values: tuple[RowDifference, ...]
    seconds: float

    @property
    def equal(self) -> bool:
        """Every table is proven, and nothing is open."""
        return self.finished and all(one.equal for one in self.tables)

    @property
    def verified_as_of(self) -> datetime | None:
        """The oldest moment of all proofs; None where a table has none."""
        moments = [one.since for one in self.tables]
        known = [moment for moment in moments if moment is not None]
        return min(known) if known and len(known) == len(moments) else None


def aligning(options: ReconcileOptions) -> AbstractContextManager[Aligner]:
    """Where this migration's alignment points come from: its running service."""
    return RequestedAlignment(options.target_dsn)


def run(
    options: ReconcileOptions,
    aligner: Aligner,
    observe: Callable[[Progress], None] = lambda _: None,
) -> Report:
    """Compare, and repair where that is asked for.

    Args:
        aligner: where alignment points come from; the caller closes it.

    Raises:
        ConfigurationError: CDCM-RECONCILE-TABLES: no table is chosen.
        Refused: CDCM-MIGRATION-MISSING, CDCM-RECONCILE-RUNNING, CDCM-RECONCILE-NOTHING.
        MigratorError: a database or the alignment failed; `resume` goes on from there.
    """
    began = time.monotonic()
    with both(options) as (source, target):
        tables = tables_of(options, target)
        current = _run(options, target, list(tables))
        tables = {one: tables[one] for one in current.tables if one in tables}
        loaded = {one: table.target for one, table in tables.items() if streams(table)}
        with speaking("source", "reading its tables"):
            looked = read_pairs(source, target, loaded)
            looked += [
                Unpaired(one, "it is not loaded yet") for one in tables.keys() - loaded.keys()
            ]
            pairs = only(looked)
            hashing = probe.agree(source, target)
        work = Pass(
            (options.source_dsn, options.target_dsn),
            options.called,
            aligner,
            target,
            current,
            pairs.values(),
            hashing,
            options.work,
            observe,
        )
        try:
            outcome = work.run()
        except BaseException:
            # The run can be resumed also where this cannot be written down any more.
            with suppress(MigratorError, psycopg.Error):
                conclude(target, current, pairs, Outcome(False, {}, []))
            raise
        conclude(target, current, pairs, outcome)
        planned: Sequence[Repair] = ()
        repaired = 0
        if options.repair or options.dry_run:
            standing = differences.standing(target, current.tables)
            planned = mend.plan(standing, pairs, current.id)
        if planned and options.repair and not options.dry_run:
            with Sides(options.source_dsn, options.target_dsn, options.called) as sides:
                done = mend.mend(sides, aligner, target, pairs, standing, current.id)
            repaired = done.repaired
        with speaking("target", "reading what was compared"):
            reports = _reports(target, current, looked, outcome)
        return Report(
            current,
            outcome.finished,
            reports,
            tuple(planned) if options.dry_run else (),
            repaired,
            tuple(outcome.values),
            time.monotonic() - began,
        )


@contextmanager
def both(options: ReconcileOptions) -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    """A session on either side, the target's as the only one that compares or repairs.

    Raises MigratorError: as `run`.
    """
    with (
        connect(
            options.source_dsn, application_name=options.called, side="source", read_only=True
        ) as source,
        _control(options.name, options.target_dsn) as target,
    ):
        if not locks.try_lock(target, locks.Role.RECONCILE):
            raise Refused(
                "CDCM-RECONCILE-RUNNING",
                "another process is comparing or repairing the tables of this migration",
                "Wait for it, or end it and repeat with --resume.",
            )
        yield source, target


@contextmanager
def _control(name: str, dsn: str) -> Iterator[psycopg.Connection]:
    called = f"cdcm-{name}-reconcile"
    with connect(dsn, application_name=called, side="target") as target:
        with speaking("target", "reading the migration"):
            migration.require(target, name)
            schema.ensure(target, "target")
        yield target


def streams(table: TableLoad) -> bool:
    """Whether the target's table is what the stream makes of it."""
    return table.state is LoadState.LOADED and table.joining is None


def tables_of(options: ReconcileOptions, target: psycopg.Connection) -> dict[TableName, TableLoad]:
    """The tables that are chosen. Raises ConfigurationError: CDCM-RECONCILE-TABLES: none is."""
    with speaking("target", "reading the migration's tables"):
        known = load.read_tables(target)
    tables = {one.source: one for one in known if chosen([str(one.source)], options.tables, ())}
    if not tables:
        raise ConfigurationError(
            "CDCM-RECONCILE-TABLES",
            "no table of the migration is chosen",
            "`cdc-migrator status` lists its tables; patterns are like shop.*.",
        )
    return tables


def _run(options: ReconcileOptions, target: psycopg.Connection, names: list[TableName]) -> Run:
    if not options.resume:
        return reconcile.begin(target, options.mode, sorted(names))
    there = reconcile.unfinished(target)
    if there is None:
        raise Refused(
            "CDCM-RECONCILE-NOTHING",
            "there is no comparison that could be gone on with",
            "Begin one: `cdc-migrator reconcile` without --resume.",
        )
    reconcile.resume(target, there.id)
    return there


def _reports(
    target: psycopg.Connection,
    current: Run,
    looked: Sequence[Pair | Unpaired],
    outcome: Outcome,
) -> tuple[TableReport, ...]:
    known = {one.table: one for one in reconcile.proven(target, current.id)}
    standing: dict[TableName, list[Known]] = {}
    for one in differences.standing(target, current.tables):
        standing.setdefault(one.table, []).append(one)
    reasons = {**{o.table: o.reason for o in looked if isinstance(o, Unpaired)}, **outcome.unproven}
    left_out = {o.source.name: o.left_out for o in looked if isinstance(o, Pair)}
    reports = []
    for name in current.tables:
        proven = known.get(name)
        reason = reasons.get(name)
        if reason is None and (proven is None or proven.done < proven.planned):
            reason = "not compared to its end yet"
        reports.append(
            TableReport(
                name,
                proven.rows if proven else 0,
                proven.since if proven else None,
                tuple(standing.get(name, ())),
                bool(proven and proven.more),
                reason,
                left_out.get(name, ()),
            )
        )
    return tuple(reports)


def history(
    name: str, target_dsn: str, table: TableName | None, limit: int
) -> tuple[list[Run], list[Known]]:
    """The latest runs and differences, newest first. Raises as `run`."""
    with (
        _control(name, target_dsn) as target,
        speaking("target", "reading what was compared"),
    ):
        return reconcile.runs(target, limit), differences.history(target, table, limit)


def accept(name: str, target_dsn: str, ids: Sequence[int], reason: str, who: str) -> list[int]:
    """Let open differences stand; returns which were open. Raises as `run`."""
    with (
        _control(name, target_dsn) as target,
        speaking("target", "writing down what is accepted"),
    ):
        return differences.accept(target, ids, reason, who)


def statement(options: ReconcileOptions, table: TableName) -> str:
    """The statement by which a person compares one table, where one server has both sides.

    Raises: as `run`.
    """
    with (
        connect(
            options.source_dsn, application_name=options.called, side="source", read_only=True
        ) as source,
        _control(options.name, options.target_dsn) as target,
    ):
        tables = tables_of(options, target)
        if table not in tables:
            raise ConfigurationError(
                "CDCM-RECONCILE-TABLES",
                f"{table} is no table of the migration",
                "`cdc-migrator status` lists its tables; write schema.table.",
            )
        (found,) = read_pairs(source, target, {table: tables[table].target})
        if isinstance(found, Unpaired):
            raise Refused(
                "CDCM-RECONCILE-UNPAIRED",
                f"{table} cannot be compared: {found.reason}",
                "`cdc-migrator schema diff` shows how to bring the target's table in line.",
            )
        return person.statement(found, source)
