"""Measure the number of every rule at once, and say what it must not exceed.

Numbers of the user are asked side by side, so that one that hangs holds up no other; a turn takes
as long as the slowest, and each has its time limit.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from cdc_migrator.config import watch as configured
from cdc_migrator.config.watch import Rule, Watch
from cdc_migrator.monitor.measured import Measured, Number
from cdc_migrator.monitor.own_numbers import Look, OwnNumbers
from cdc_migrator.monitor.user_numbers import CommandNumber, PrometheusNumber, SqlNumber
from cdc_migrator.monitor.watch import Condition

_GIVEN = (configured.Prometheus, configured.Sql, configured.Command)
_MOST_AT_ONCE = 16
# What a turn may take longer than its pause without a doubt about the time between.
_SLACK_SECONDS = 10.0
_NO_BASELINE = (
    "no baseline of the source's latency as it is measured now: `cdc-migrator baseline record` "
    "while applications are there"
)


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """Which migration, where its databases are, and the rules; the functions give complete
    connection strings."""

    migration: str
    source_dsn: Callable[[], str]
    target_dsn: Callable[[], str]
    watch: Watch


@dataclass(frozen=True, slots=True)
class Taken:
    """One rule's number, and what it is held against."""

    rule: Rule
    measured: Measured
    condition: Condition

    @property
    def number(self) -> float | None:
        """The number; None where it or the threshold is not known."""
        return self.measured.number if self.condition.threshold is not None else None

    @property
    def why(self) -> str | None:
        """Why it cannot be judged."""
        if self.measured.number is not None and self.condition.threshold is None:
            return _NO_BASELINE
        return self.measured.why


class Measuring:
    """Measures until left. A context manager; not for several threads at once."""

    def __init__(self, options: WatchOptions) -> None:
        self._rules = options.watch.rules
        self._own = OwnNumbers.at(options.source_dsn, options.target_dsn)
        self._given = {
            rule.called: _number(rule, options) for rule in self._rules if isinstance(rule, _GIVEN)
        }
        self._pool = ThreadPoolExecutor(
            min(len(self._given), _MOST_AT_ONCE) or 1, thread_name_prefix="watch"
        )
        slowest = max(
            (rule.timeout.total_seconds() for rule in self._rules if isinstance(rule, _GIVEN)),
            default=0.0,
        )
        self._apart = 2 * options.watch.every.total_seconds() + slowest + _SLACK_SECONDS

    def __enter__(self) -> Measuring:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self) -> list[Taken]:
        """Measure every rule's number now, in the rules' order."""
        asked = {name: self._pool.submit(number.take) for name, number in self._given.items()}
        look = self._own.look() if len(self._given) < len(self._rules) else None
        taken = []
        for rule in self._rules:
            if isinstance(rule, _GIVEN):
                measured = asked[rule.called].result()
            else:
                assert look is not None
                measured = look.of(rule.kind)
            taken.append(Taken(rule, measured, self._condition(rule, look)))
        return taken

    def stop(self) -> None:
        """Have a measurement that is under way in another thread end soon."""
        for number in self._given.values():
            if isinstance(number, CommandNumber):
                number.close()

    def close(self) -> None:
        """End the sessions and programs."""
        self.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for number in self._given.values():
            number.close()
        self._own.close()

    def _condition(self, rule: Rule, look: Look | None) -> Condition:
        found = condition(rule, self._apart)
        if isinstance(rule, configured.Latency) and rule.threshold is None and look is not None:
            usual = look.usual_latency()
            return replace(found, threshold=usual and usual * rule.times_baseline)
        return found


def condition(rule: Rule, apart: float) -> Condition:
    """What a rule asks for, as far as the settings say."""
    threshold: float | None
    if isinstance(rule, configured.Lag):
        threshold = rule.threshold.total_seconds()
    elif isinstance(rule, configured.Critical):
        threshold = 0.0
    else:
        threshold = rule.threshold
    below = isinstance(rule, _GIVEN) and rule.below
    return Condition(threshold, below, rule.for_.total_seconds(), apart)


def _number(
    rule: configured.Prometheus | configured.Sql | configured.Command, options: WatchOptions
) -> Number:
    if isinstance(rule, configured.Prometheus):
        return PrometheusNumber(rule)
    if isinstance(rule, configured.Sql):
        return SqlNumber(rule, options.source_dsn if rule.side == "source" else options.target_dsn)
    return CommandNumber(rule)
