"""Check rules on both sides at one commit point, or as each side is where nobody applies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase

import psycopg

from cdc_migrator.config.rules import Rule
from cdc_migrator.config.validate import digest
from cdc_migrator.control import cutover, load, migration, progress, schema, validation
from cdc_migrator.control.load import LoadState
from cdc_migrator.control.validation import Kept
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.relations import Relation, read_relations
from cdc_migrator.errors import ConfigurationError
from cdc_migrator.model.alignment import Aligner
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.tables import TableName
from cdc_migrator.service.alignment import RequestedAlignment
from cdc_migrator.service.direction import Direction
from cdc_migrator.service.rule_work import How, Points, Progress, Work
from cdc_migrator.validate.known import Catalogs, wrong
from cdc_migrator.validate.mapped import through
from cdc_migrator.validate.results import Result

_STALE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class ValidateOptions:
    """Which migration, which rules, and how. The strings hold passwords.

    Attributes:
        way: in which changes are applied now; where that is back, its source is our target.
        place: where a field of a rule stands, for messages.
        only, tables: shell patterns over rules' names and tables; empty: all.
        aligned: both sides at one commit point; None: where somebody applies the stream.
        values: rows that break a rule are to be named.
        in_force: digest of the rules that the verdict asks for; a run of others does not count.
        timeout: seconds, for rules without one of their own.
    """

    name: str
    source_dsn: str
    target_dsn: str
    way: Direction
    rules: Sequence[Rule]
    place: Callable[[int, str], str]
    only: Sequence[str] = ()
    tables: Sequence[str] = ()
    aligned: bool | None = None
    values: bool = False
    workers: int = 2
    timeout: float = 300.0
    in_force: str | None = None

    @property
    def called(self) -> str:
        return f"cdcm-{self.name}-validate"


@dataclass(frozen=True, slots=True)
class Report:
    """What came of all rules that were looked at, in their order.

    Attributes:
        aligned: each was judged at one commit point. run: the number under which it is kept.
        whole: no rule was left out, and they are those in force.
    """

    run: int
    aligned: bool
    whole: bool
    results: tuple[Result, ...]
    seconds: float
    at: datetime

    @property
    def passed(self) -> bool:
        """Whether every blocker was seen to be kept."""
        return not any(one.blocks for one in self.results)


def run(
    options: ValidateOptions,
    observe: Callable[[Progress], None] = lambda _: None,
    aligner: Aligner | None = None,
) -> Report:
    """Check the rules, and keep what came of them in the target's control schema.

    Args:
        aligner: where alignment points come from; None: the running service, where there is one.

    Raises:
        ConfigurationError: CDCM-VALIDATE-NONE: no rule is chosen; CDCM-VALIDATE-UNKNOWN: rules
            name what is not there.
        Refused: CDCM-MIGRATION-MISSING, CDCM-CUTOVER-OPEN, CDCM-ALIGN-NO-RUN.
        MigratorError: a database or the alignment failed.
    """
    began = time.monotonic()
    chosen = _chosen(options)
    dsn = login(options.target_dsn, Role.APPLY)
    with connect(dsn, application_name=options.called, side="target") as target:
        with speaking("target", "reading the migration"):
            migration.require(target, options.name)
            schema.ensure(target, "target")
            if not options.way.back:
                cutover.require_not_open(target)
        known, loaded = _catalogs(options, target)
        _require_known(options, known)
        rules = [options.rules[place] for place in chosen]
        with _aligner(options, target, aligner) as found:
            points = Points(found, options.way.back)
            how = How(
                options.source_dsn,
                options.target_dsn,
                options.called,
                known,
                loaded,
                options.values,
                options.workers,
                options.timeout,
            )
            results = Work(how, points, observe).run(rules)
        of = digest(options.rules)
        whole = len(chosen) == len(options.rules) and options.in_force in (None, of)
        passed = not any(one.blocks for one in results)
        at = max((one.at for one in results if one.at), default=datetime.now(UTC))
        seconds = time.monotonic() - began
        with speaking("target", "keeping what came of the rules"):
            number = validation.store(
                target,
                of,
                whole,
                points.aligned,
                passed,
                at,
                seconds,
                [_kept(one) for one in results],
            )
    return Report(number, points.aligned, whole, tuple(results), seconds, at)


def _chosen(options: ValidateOptions) -> list[int]:
    """The places of the rules that are looked at. Raises ConfigurationError."""

    def matches(text: str, patterns: Sequence[str]) -> bool:
        return not patterns or any(fnmatchcase(text, one) for one in patterns)

    chosen = [
        place
        for place, rule in enumerate(options.rules)
        if matches(rule.called, options.only) and matches(rule.table or "", options.tables)
    ]
    if not chosen:
        raise ConfigurationError(
            "CDCM-VALIDATE-NONE",
            "no rule is chosen" if options.rules else "there are no rules",
            "`cdc-migrator validate init --output rules.yaml` proposes some; name the file in "
            "validate.file, or write rules under validate.rules.",
        )
    return chosen


def _catalogs(
    options: ValidateOptions, target: psycopg.Connection
) -> tuple[Catalogs, frozenset[str]]:
    """Both sides' tables, and those that are loaded, by the source's names."""
    dsn = login(options.source_dsn, Role.VERIFY)
    with (
        connect(dsn, application_name=options.called, side="source", read_only=True) as source,
        speaking("source", "reading its tables"),
    ):
        here = read_relations(source)
    with speaking("target", "reading its tables"):
        there = read_relations(target)
        moved = load.read_tables(target)
    routes = {one.source: one.route for one in moved if one.route is not None}
    known = catalogs(here, there, {one.source: one.target for one in moved})
    return through(known, routes), _loaded(
        here, {str(one.source): one.state is LoadState.LOADED for one in moved}
    )


def catalogs(
    source: dict[str, Relation], target: dict[str, Relation], moved: dict[TableName, TableName]
) -> Catalogs:
    """With the partitioned tables that the tables of the migration are part of."""
    names = {str(one): other for one, other in moved.items()}
    for one in list(names):
        if one in source and (root := source[one].root) is not None:
            names.setdefault(str(root), root)
    return Catalogs(source, target, names, {}, {})


def _loaded(source: dict[str, Relation], tables: dict[str, bool]) -> frozenset[str]:
    """A partitioned table is loaded when all of its partitions are."""
    found = {name for name, loaded in tables.items() if loaded}
    whole: dict[str, bool] = {}
    for name, loaded in tables.items():
        own, arrow, to = name.partition(" -> ")
        if own in source and (root := source[own].root) is not None:
            called = f"{root}{arrow}{to}"
            whole[called] = whole.get(called, True) and loaded
    return frozenset(found | {name for name, loaded in whole.items() if loaded})


def _require_known(options: ValidateOptions, known: Catalogs) -> None:
    faults = [
        f"{options.place(one.rule, one.field)}: {one.message}"
        for one in wrong(options.rules, known)
    ]
    if faults:
        cause = faults[0] if len(faults) == 1 else "\n  ".join([f"{len(faults)} faults", *faults])
        raise ConfigurationError(
            "CDCM-VALIDATE-UNKNOWN",
            cause,
            "Correct the rules; `cdc-migrator validate init` shows what the catalog has.",
        )


@contextmanager
def _aligner(
    options: ValidateOptions, target: psycopg.Connection, given: Aligner | None
) -> Iterator[Aligner | None]:
    if given is not None:
        yield given
        return
    wanted = options.aligned
    if wanted is None:
        wanted = _applied(options, target)
    if not wanted:
        yield None
        return
    with RequestedAlignment(options.way.target_dsn) as asking:
        yield asking


def _applied(options: ValidateOptions, target: psycopg.Connection) -> bool:
    """Whether somebody applies the stream."""
    with speaking("target", "looking for the service"):
        if not options.way.back:
            return progress.alive(target, _STALE_SECONDS)
        dsn = login(options.way.target_dsn, Role.MONITOR)
        with connect(dsn, application_name=options.called, side="source", read_only=True) as other:
            return progress.alive(other, _STALE_SECONDS)


def _kept(one: Result) -> Kept:
    return Kept(
        one.name, one.kind, one.table, one.severity, one.status, one.judged.reason, one.seconds
    )
