"""The gauges of the rules that watch the target; there is none while nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily

from cdc_migrator.monitor.watch import State

Rule = Mapping[str, Any]


def _number(name: str) -> Callable[[Rule], float | None]:
    return lambda rule: None if rule[name] is None else float(rule[name])


_GAUGES: Final = (
    ("watch_number", "The number of the rule, as it was measured last.", _number("number")),
    ("watch_threshold", "What the number is held against.", _number("threshold")),
    (
        "watch_action_failed",
        "1 while what a rule that has fired asks for could not be done.",
        lambda rule: float(rule["error"] is not None),
    ),
)


class RuleCollector:
    """Shows rules as `shown` has them: mappings with ``rule`` (its name), ``number``,
    ``threshold``, ``state`` and ``error``; what is None is left out."""

    def __init__(self, migration: str, prefix: str) -> None:
        self.shown: Sequence[Rule] = ()
        self._migration = migration
        self._prefix = prefix

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The families, without values."""
        yield from (self._family(name, text) for name, text, _ in _GAUGES)
        yield self._states()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families that have values."""
        rules = self.shown
        if not rules:
            return
        for name, text, value in _GAUGES:
            family = self._family(name, text)
            for rule in rules:
                number = value(rule)
                if number is not None:
                    family.add_metric([self._migration, rule["rule"]], number)
            if family.samples:
                yield family
        states = self._states()
        for rule in rules:
            for state in State:
                labels = [self._migration, rule["rule"], str(state)]
                states.add_metric(labels, float(rule["state"] == state))
        yield states

    def _family(self, name: str, text: str, *more: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(self._prefix + name, text, labels=["migration", "rule", *more])

    def _states(self) -> GaugeMetricFamily:
        return self._family("watch_state", "1 for how the rule stands.", "state")
