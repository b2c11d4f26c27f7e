"""Compare the tables of one migration, and have repaired what differs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import psycopg

from cdc_migrator.control import (
    cutover,
    dead_letters,
    differences,
    freshness,
    load,
    locks,
    migration,
    proofs,
    reconcile,
    schema,
    unclaimed,
)
from cdc_migrator.control.differences import Known
from cdc_migrator.control.load import LoadState, TableLoad
from cdc_migrator.control.reconcile import Run
from cdc_migrator.databases.postgres.catalog import chosen
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import ConfigurationError, MigratorError, Refused
from cdc_migrator.model.alignment import Aligner, Repair
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile import mend, person, probe, unpark
from cdc_migrator.reconcile.agenda import Kept
from cdc_migrator.reconcile.at_once import meanwhile
from cdc_migrator.reconcile.expressions import Hashing
from cdc_migrator.reconcile.options import Outcome, PassOptions, Progress
from cdc_migrator.reconcile.pairs import Pair, Unpaired, only, pairs_of
from cdc_migrator.reconcile.passes import Pass
from cdc_migrator.reconcile.snapshot import Sides
from cdc_migrator.reconcile.verdict import conclude
from cdc_migrator.service.alignment import RequestedAlignment
from cdc_migrator.service.reconcile_report import Report, reports

_GIVE_WAY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class ReconcileOptions:
    """Which migration, which of its tables, and what to do. The strings hold passwords.

    Attributes:
        tables: shell patterns over ``schema.table``; None: all.
        mode: ``full``; ``sample``: some chunks of each table by chance; ``incremental``: the
            chunks that the stream has written to since they were proven; ``continuous``: a round
            of these by the service.
        proof_age: after which a chunk is read again that the stream has not written to.
        most: chunks of a continuous round.
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
    proof_age: timedelta = timedelta(days=7)
    most: int | None = None
    work: PassOptions = field(default_factory=PassOptions)

    @property
    def called(self) -> str:
        return f"cdcm-{self.name}-reconcile"


@dataclass(frozen=True, slots=True)
class Looked:
    """Both sides' tables as they were found, and what both servers compute alike."""

    found: Sequence[Pair | Unpaired]
    hashing: Hashing


@dataclass(slots=True)
class Ready:
    """What a comparison needs before it can begin, for when every moment counts.

    Attributes:
        sessions: what `both` has given.
        sides: sessions for its workers.
        looked: what the first comparison with this has found; later ones do not look again.
        kept: the tables' chunks as it has found them.
    """

    sessions: tuple[psycopg.Connection, psycopg.Connection]
    sides: Sequence[Sides] = ()
    looked: Looked | None = None
    kept: dict[TableName, Kept] = field(default_factory=dict)


def aligning(options: ReconcileOptions) -> AbstractContextManager[Aligner]:
    """Where this migration's alignment points come from: its running service."""
    return RequestedAlignment(options.target_dsn)


def run(
    options: ReconcileOptions,
    aligner: Aligner,
    observe: Callable[[Progress], None] = lambda _: None,
    begun: Callable[[Pass], None] = lambda _: None,
    ready: Ready | None = None,
) -> Report:
    """Compare, and repair where that is asked for.

    Args:
        aligner: where alignment points come from; the caller closes it.
        begun: is given the pass before it runs, so that it can be stopped.
        ready: what was got beforehand, and stays.

    Raises:
        ConfigurationError: CDCM-RECONCILE-TABLES: no table is chosen.
        Refused: CDCM-MIGRATION-MISSING, CDCM-RECONCILE-RUNNING, CDCM-RECONCILE-NOTHING.
        MigratorError: a database or the alignment failed; `resume` goes on from there.
    """
    began = time.monotonic()
    with ExitStack() as open_:
        source, target = ready.sessions if ready else open_.enter_context(both(options))
        # The first worker's sessions are got while it is found out what there is to compare.
        first = Sides(options.source_dsn, options.target_dsn, options.called)
        ahead = None if ready else open_.enter_context(meanwhile(first))
        tables = tables_of(options, target, left_over=True)
        current = _run(options, target, list(tables))
        tables = {one: tables[one] for one in current.tables if one in tables}
        loaded = {one: table for one, table in tables.items() if streams(table)}
        looked = ready.looked if ready else None
        if looked is None:
            looked = _look(source, target, loaded.values())
            if ready is not None:
                ready.looked = looked
        found = [*looked.found]
        found += [Unpaired(one, "it is not loaded yet") for one in tables.keys() - loaded.keys()]
        pairs = only(found)
        with speaking("target", "reading what was compared"):
            proofs.tidy(target)
            if ready is None:  # else every moment counts
                freshness.note(target)
            due = None
            if current.mode not in ("full", "sample"):
                before = datetime.now(UTC) - options.proof_age
                due = proofs.due(target, list(pairs), before, options.most)
        work = Pass(
            (options.source_dsn, options.target_dsn),
            options.called,
            aligner,
            target,
            current,
            pairs.values(),
            looked.hashing,
            options.work,
            observe,
            due,
            ready.sides if ready else [ahead.result()] if ahead else (),
            ready.kept if ready else None,
        )
        begun(work)
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
        if options.repair or options.dry_run:
            kept_back = unpark.to_settle(target, pairs, planned, current.id)
            if options.dry_run:
                planned = [*planned, *kept_back]
            elif kept_back:
                aligner.align(kept_back)
                aligner.release()
        with speaking("target", "reading what was compared"):
            tables_report = reports(target, current, found, outcome)
            parked = frozenset((one.table, one.texts) for one in dead_letters.keys(target))
        return Report(
            current,
            outcome.finished,
            tables_report,
            tuple(planned) if options.dry_run else (),
            repaired,
            tuple(outcome.values),
            time.monotonic() - began,
            parked,
        )


def _look(
    source: psycopg.Connection,
    target: psycopg.Connection,
    tables: Iterable[TableLoad],
) -> Looked:
    with speaking("source", "reading its tables"):
        return Looked(pairs_of(source, target, tables), probe.agree(source, target))


@contextmanager
def both(options: ReconcileOptions) -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    """A session on either side, the target's as the only one that compares or repairs.

    Raises MigratorError: as `run`.
    """
    with (
        meanwhile(_reader(options)) as source,
        _control(options.name, options.target_dsn) as target,
    ):
        cutover.require_not_open(target)
        _lock(target, options.mode)
        yield source.result(), target


@contextmanager
def _reader(options: ReconcileOptions) -> Iterator[psycopg.Connection]:
    dsn = login(options.source_dsn, Role.VERIFY)
    with connect(dsn, application_name=options.called, side="source", read_only=True) as source:
        yield source


def _lock(target: psycopg.Connection, mode: str) -> None:
    """Be the only one who compares; a command has the service's own comparing give way."""
    command = mode != reconcile.CONTINUOUS
    patience = _GIVE_WAY_SECONDS if command else 0.0
    if (not command or locks.try_lock(target, locks.Role.RECONCILE_COMMAND)) and locks.try_lock(
        target, locks.Role.RECONCILE, patience
    ):
        return
    raise Refused(
        "CDCM-RECONCILE-RUNNING",
        "another process is comparing the tables of this migration",
        "Wait for it, or end it and repeat with --resume.",
    )


@contextmanager
def _control(name: str, dsn: str) -> Iterator[psycopg.Connection]:
    called = f"cdcm-{name}-reconcile"
    with connect(login(dsn, Role.APPLY), application_name=called, side="target") as target:
        with speaking("target", "reading the migration"):
            migration.require(target, name)
            schema.ensure(target, "target")
        yield target


def streams(table: TableLoad) -> bool:
    """Whether the target's table is what the stream makes of it."""
    return table.state is LoadState.LOADED and table.joining is None


def tables_of(
    options: ReconcileOptions, target: psycopg.Connection, *, left_over: bool = False
) -> dict[TableName, TableLoad]:
    """The tables that are chosen. Raises ConfigurationError: CDCM-RECONCILE-TABLES: none is.

    Args:
        left_over: also what no table claims of those that several go to.
    """
    with speaking("target", "reading the migration's tables"):
        known = load.read_tables(target)
        known += unclaimed.read(target, known) if left_over else []
    tables = {one.source: one for one in known if chosen(_called(one), options.tables, ())}
    if not tables:
        raise ConfigurationError(
            "CDCM-RECONCILE-TABLES",
            "no table of the migration is chosen",
            "`cdc-migrator status` lists its tables; patterns are like shop.*.",
        )
    return tables


def _called(table: TableLoad) -> list[str]:
    """The names by which a table is chosen. That of the source's chooses all that it is split into;
    each of these has one that says where it goes."""
    if table.route is None or table.route.claims_rest:
        return [str(table.source)]
    return [str(table.relation), f"{table.relation} -> {table.target}"]


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
        _reader(options) as source,
        _control(options.name, options.target_dsn) as target,
    ):
        tables = tables_of(options, target)
        if table not in tables:
            raise ConfigurationError(
                "CDCM-RECONCILE-TABLES",
                f"{table} is no table of the migration",
                "`cdc-migrator status` lists its tables; write schema.table.",
            )
        (found,) = pairs_of(source, target, [tables[table]])
        if isinstance(found, Unpaired):
            raise Refused(
                "CDCM-RECONCILE-UNPAIRED",
                f"{table} cannot be compared: {found.reason}",
                "`cdc-migrator schema diff` shows how to bring the target's table in line.",
            )
        return person.statement(found, source)
