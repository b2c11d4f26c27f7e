"""Check rules on both sides at one commit point, or as each side is where nobody applies.

A rule that is not kept is asked once more, at another point: a table that was truncated or
rewritten since a snapshot was taken looks empty in it.
"""

from __future__ import annotations

import threading
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
from cdc_migrator.errors import ConfigurationError, Failed, MigratorError
from cdc_migrator.model.alignment import Aligned, Aligner
from cdc_migrator.model.tables import TableName
from cdc_migrator.service.alignment import RequestedAlignment
from cdc_migrator.service.direction import Direction
from cdc_migrator.validate.asking import Asker
from cdc_migrator.validate.known import Catalogs, wrong
from cdc_migrator.validate.questions import told
from cdc_migrator.validate.reading import Readers, SnapshotLost
from cdc_migrator.validate.results import Judged, Result, Status

_STALE_SECONDS = 15.0
_POINTS = 3  # at which one rule is tried
_NOT_LOADED = "the table is not loaded yet"


@dataclass(frozen=True, slots=True)
class ValidateOptions:
    """Which migration, which rules, and how. The strings hold passwords.

    Attributes:
        way: in which changes are applied now; where that is back, its source is our target.
        place: where a field of a rule stands, for messages.
        only, tables: shell patterns over rules' names and tables; empty: all.
        aligned: both sides at one commit point; None: where somebody applies the stream.
        values: rows that break a rule are to be named.
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

    @property
    def called(self) -> str:
        return f"cdcm-{self.name}-validate"


@dataclass(frozen=True, slots=True)
class Report:
    """What came of all rules that were looked at, in their order.

    Attributes:
        aligned: each was judged at one commit point. run: the number under which it is kept.
        whole: no rule was left out.
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


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is."""

    done: int
    rules: int
    not_kept: int


class Points:
    """The point at which rules are judged, made anew when it is lost; None: there are none.

    Shared by all workers; thread-safe.
    """

    def __init__(self, aligner: Aligner | None, back: bool) -> None:
        self._aligner = aligner
        self._back = back
        self._lock = threading.Lock()
        self._now: Aligned | None = None

    @property
    def aligned(self) -> bool:
        return self._aligner is not None

    def get(self, lost: Aligned | None = None) -> Aligned | None:
        """The present point; a new one where the present is `lost`. Raises MigratorError."""
        if self._aligner is None:
            return None
        with self._lock:
            if self._now is None or self._now is lost:
                self._now = self._aligner.align()
            return self._now

    def snapshots(self, point: Aligned | None) -> tuple[str, str] | None:
        """Our source's and our target's."""
        if point is None:
            return None
        both = (point.source_snapshot, point.target_snapshot)
        return (both[1], both[0]) if self._back else both


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
    with connect(options.target_dsn, application_name=options.called, side="target") as target:
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
            results = _Work(options, known, loaded, points, observe).run(rules)
        whole = len(chosen) == len(options.rules)
        passed = not any(one.blocks for one in results)
        at = max((one.at for one in results if one.at), default=datetime.now(UTC))
        seconds = time.monotonic() - began
        with speaking("target", "keeping what came of the rules"):
            number = validation.store(
                target,
                digest(options.rules),
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
    with (
        connect(
            options.source_dsn, application_name=options.called, side="source", read_only=True
        ) as source,
        speaking("source", "reading its tables"),
    ):
        here = read_relations(source)
    with speaking("target", "reading its tables"):
        there = read_relations(target)
        moved = load.read_tables(target)
    return catalogs(here, there, {one.source: one.target for one in moved}), _loaded(
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
    return Catalogs(source, target, names)


def _loaded(source: dict[str, Relation], tables: dict[str, bool]) -> frozenset[str]:
    """A partitioned table is loaded when all of its partitions are."""
    found = {name for name, loaded in tables.items() if loaded}
    whole: dict[str, bool] = {}
    for name, loaded in tables.items():
        if name in source and (root := source[name].root) is not None:
            whole[str(root)] = whole.get(str(root), True) and loaded
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
        with connect(
            options.way.target_dsn, application_name=options.called, side="source", read_only=True
        ) as other:
            return progress.alive(other, _STALE_SECONDS)


class _Work:
    """Rules that are looked at by several workers, those of the largest tables first."""

    def __init__(
        self,
        options: ValidateOptions,
        known: Catalogs,
        loaded: frozenset[str],
        points: Points,
        observe: Callable[[Progress], None],
    ) -> None:
        self._options = options
        self._known = known
        self._loaded = loaded
        self._points = points
        self._observe = observe
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._results: dict[int, Result] = {}
        self._rules: Sequence[Rule] = ()
        self._failure: BaseException | None = None

    def run(self, rules: Sequence[Rule]) -> list[Result]:
        """What came of each, in their order. Raises MigratorError."""
        self._rules = rules
        self._pass(range(len(rules)))
        # Judged anew at a later point, for what a snapshot cannot see.
        again = [place for place, one in self._results.items() if one.status is Status.FAILED]
        if again and self._points.aligned:
            self._points.get(self._points.get())
            self._pass(again)
        return [self._results[place] for place in range(len(rules))]

    def _pass(self, places: Sequence[int]) -> None:
        todo = sorted(places, key=self._size)
        many = min(self._options.workers, len(todo))
        readers: list[Readers] = []
        threads = [
            threading.Thread(
                target=self._worker, args=(todo, readers), name=f"validate-{number}", daemon=True
            )
            for number in range(many)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self._stopped.set()
            for one in list(readers):
                one.cancel()
            raise
        if self._failure is not None:
            raise self._failure

    def _size(self, place: int) -> int:
        """By the source's statistics: the last in order is taken first."""
        there = self._known.source.get(self._rules[place].table or "")
        return (there.rows or 0) if there else 0

    def _worker(self, todo: list[int], readers: list[Readers]) -> None:
        options = self._options
        try:
            with Readers(options.source_dsn, options.target_dsn, options.called) as own:
                readers.append(own)
                asker = Asker(own, self._known, options.values)
                while not self._stopped.is_set():
                    with self._lock:
                        if not todo:
                            return
                        place = todo.pop()
                    result = self._rule(asker, self._rules[place])
                    with self._lock:
                        self._results[place] = result
                        self._tell()
        except BaseException as error:
            self._failure = self._failure or error
            self._stopped.set()

    def _tell(self) -> None:
        not_kept = sum(not one.passed for one in self._results.values())
        self._observe(Progress(len(self._results), len(self._rules), not_kept))

    def _rule(self, asker: Asker, rule: Rule) -> Result:
        """Raises MigratorError: a connection is lost, or there is no point."""
        began = time.monotonic()
        if rule.table in self._known.moved and rule.table not in self._loaded:
            return _result(rule, Judged(Status.SKIPPED, _NOT_LOADED), 0.0, None)
        limit = rule.timeout.total_seconds() if rule.timeout else self._options.timeout
        lost: Aligned | None = None
        for _ in range(_POINTS):
            point = self._points.get(lost)
            try:
                with asker.readers.under(self._points.snapshots(point), limit):
                    judged = asker.judged(rule)
                at = point.at if point else datetime.now(UTC)
                return _result(rule, judged, time.monotonic() - began, at)
            except SnapshotLost:
                lost = point
            except MigratorError as error:
                if error.code in _FATAL:
                    raise
                judged = Judged(Status.ERROR, error.cause)
                return _result(
                    rule, judged, time.monotonic() - began, None, error.code, error.remedy
                )
        raise Failed(
            "CDCM-ALIGN-LOST",
            "the snapshots of both sides were lost again and again",
            "See the log of `cdc-migrator run`, then run the same command again.",
        )


_FATAL = frozenset({"CDCM-DB-LOST", "CDCM-DB-UNREACHABLE"})


def _result(
    rule: Rule,
    judged: Judged,
    seconds: float,
    at: datetime | None,
    code: str | None = None,
    remedy: str | None = None,
) -> Result:
    return Result(
        rule.called,
        rule.kind,
        rule.table,
        rule.severity,
        told(rule),
        judged,
        seconds,
        at,
        code,
        remedy,
    )


def _kept(one: Result) -> Kept:
    return Kept(
        one.name, one.kind, one.table, one.severity, one.status, one.judged.reason, one.seconds
    )
