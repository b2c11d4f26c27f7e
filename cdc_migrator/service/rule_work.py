"""Rules that are looked at by several workers, each at the newest point of both sides.

A rule that is not kept is asked once more, at another point: a table that was truncated or
rewritten since a snapshot was taken looks empty in it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cdc_migrator.config.rules import Rule
from cdc_migrator.errors import Failed, MigratorError
from cdc_migrator.model.alignment import Aligned, Aligner
from cdc_migrator.validate.asking import Asker
from cdc_migrator.validate.known import Catalogs
from cdc_migrator.validate.questions import told
from cdc_migrator.validate.reading import Readers, SnapshotLost
from cdc_migrator.validate.results import Judged, Result, Status

_POINTS = 3  # at which one rule is tried
_NOT_LOADED = "the table is not loaded yet"
# What no other rule could be asked after.
_FATAL = frozenset({"CDCM-DB-LOST", "CDCM-DB-UNREACHABLE"})


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is."""

    done: int
    rules: int
    not_kept: int


@dataclass(frozen=True, slots=True)
class How:
    """How rules are looked at. The strings hold passwords.

    Attributes:
        called: the sessions' application_name.
        loaded: tables that are, by the source's names.
        values: rows that break a rule are to be named.
        workers: sessions of either side. timeout: seconds, for rules without one of their own.
    """

    source_dsn: str
    target_dsn: str
    called: str
    known: Catalogs
    loaded: frozenset[str]
    values: bool
    workers: int
    timeout: float


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


class Work:
    """Rules that are looked at by several workers, those of the largest tables first."""

    def __init__(
        self,
        how: How,
        points: Points,
        observe: Callable[[Progress], None],
    ) -> None:
        self._how = how
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
        many = min(self._how.workers, len(todo))
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
        there = self._how.known.source.get(self._rules[place].table or "")
        return (there.rows or 0) if there else 0

    def _worker(self, todo: list[int], readers: list[Readers]) -> None:
        how = self._how
        try:
            with Readers(how.source_dsn, how.target_dsn, how.called) as own:
                readers.append(own)
                asker = Asker(own, how.known, how.values)
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
        if rule.table in self._how.known.moved and rule.table not in self._how.loaded:
            return _result(rule, Judged(Status.SKIPPED, _NOT_LOADED), 0.0, None)
        limit = rule.timeout.total_seconds() if rule.timeout else self._how.timeout
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
