"""The page `/metrics`, on a registry of its own: `gauges` of the latest sample, and counters.

Gauges come from the latest `Sample`, so `/metrics` shows the numbers that `status` shows; what is
unknown is absent, never 0. Counters and the histogram are told by the applier. Labels are
migration, table, op, phase, state, part, side, code and rule; never a key, a value or an error's
text.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.process_collector import ProcessCollector

from cdc_migrator.model.changes import Op
from cdc_migrator.model.gates import Gate, Verdict, ready
from cdc_migrator.monitor.gauges import GAUGES, LABELLED, Gauge, LabelledGauge
from cdc_migrator.monitor.rule_metrics import RuleCollector
from cdc_migrator.monitor.sample import Sample

PREFIX: Final = "cdc_migrator_"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
# A table more than this many is counted as table="other": a series for each must stay bounded.
MAX_TABLES: Final = 200
OTHER: Final = "other"
_BATCH_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
# A second series for each counter, which says no more than when this process began.
disable_created_metrics()  # type: ignore[no-untyped-call]
_OPS: Final = {
    Op.INSERT: "insert",
    Op.UPDATE: "update",
    Op.DELETE: "delete",
    Op.TRUNCATE: "truncate",
}


class Metrics:
    """The service's metrics. Thread-safe.

    Attributes:
        registry: where all of them are; nothing is registered globally.
    """

    def __init__(self, migration: str, version: str) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._migration = migration
        self._tables: set[str] = set()
        self._lock = threading.Lock()
        self._events = self._counter(
            "apply_events", "Row events applied, by operation and source table.", "op", "table"
        )
        self._transactions = self._counter("transactions_applied", "Source transactions applied.")
        self._redelivered = self._counter(
            "transactions_redelivered", "Transactions that came again and were left aside."
        )
        self._suspect = self._counter(
            "transactions_suspect", "Transactions applied although their start was not proven."
        )
        self._retries = self._counter(
            "apply_retries",
            "Attempts to apply a batch that failed and were made again, once it is applied.",
        )
        self._batch = Histogram(
            PREFIX + "apply_batch_seconds",
            "Time to apply one batch, its commit included.",
            ["migration"],
            buckets=_BATCH_BUCKETS,
            registry=self.registry,
        ).labels(migration)
        self._fired = self._counter(
            "watch_fired", "How often a rule has fired while the target was open.", "rule"
        )
        self._samples = _SampleCollector(migration, version)
        self.registry.register(self._samples)
        self._rules = RuleCollector(migration, PREFIX)
        self.registry.register(self._rules)
        ProcessCollector(registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Any:
        counter = Counter(PREFIX + name, text, ["migration", *labels], registry=self.registry)
        # Without labels of its own it is there from the start, so that a rate can be taken.
        return counter if labels else counter.labels(self._migration)

    def batch_applied(
        self,
        seconds: float,
        transactions: int,
        events: Mapping[tuple[str, Op], int],
        redelivered: int = 0,
        suspect: int = 0,
        retries: int = 0,
    ) -> None:
        """Count one batch after its commit; `events` by (source table, operation)."""
        self._batch.observe(seconds)
        self._transactions.inc(transactions)
        self._redelivered.inc(redelivered)
        self._suspect.inc(suspect)
        self._retries.inc(retries)
        for (table, op), count in events.items():
            self._events.labels(self._migration, _OPS[op], self._label(table)).inc(count)

    def update(self, sample: Sample, gates: Sequence[Gate] = ()) -> None:
        """Show this sample from now on, and how the gates judge it."""
        self._samples.shown = sample, gates

    def watched(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Show how these rules stand (see `RuleCollector`) from now on; none: nobody watches."""
        for rule in rules:
            self._fired.labels(self._migration, rule["rule"])  # there before it is counted up
        self._rules.shown = rules

    def watch_fired(self, rule: str) -> None:
        """Count that a rule has fired."""
        self._fired.labels(self._migration, rule).inc()

    def render(self) -> bytes:
        """The page `/metrics`, of the type `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def _label(self, table: str) -> str:
        with self._lock:
            if table not in self._tables and len(self._tables) < MAX_TABLES:
                self._tables.add(table)
            return table if table in self._tables else OTHER


class _SampleCollector:
    """Gauges of the latest sample, made when they are asked for."""

    def __init__(self, migration: str, version: str) -> None:
        self.shown: tuple[Sample, Sequence[Gate]] | None = None
        self._migration = migration
        self._version = version

    def describe(self) -> Iterator[Any]:
        yield from (self._family(gauge) for gauge in (*GAUGES, *LABELLED))

    def collect(self) -> Iterator[Any]:
        yield InfoMetricFamily(
            PREFIX + "build",
            "What runs.",
            value={"version": self._version, "migration": self._migration},
        )
        if self.shown is None:
            return
        sample, gates = self.shown
        yield from self._readiness(gates)
        for gauge in GAUGES:
            value = gauge.value(sample)
            if value is not None:
                family = self._family(gauge)
                family.add_metric([self._migration], float(value))
                yield family
        for many in LABELLED:
            values = many.values(sample)
            if values:
                family = self._family(many)
                for label, value in values.items():
                    family.add_metric([self._migration, label], float(value))
                yield family
        if sample.tables is not None:
            yield self._snapshot_rows(sample)

    def _readiness(self, gates: Sequence[Gate]) -> Iterator[GaugeMetricFamily]:
        if not gates:
            return
        whole = GaugeMetricFamily(
            PREFIX + "ready",
            "1 while it is safe to leave the source: every gate is passed.",
            labels=["migration"],
        )
        whole.add_metric([self._migration], float(ready(gates)))
        yield whole
        for name, text, verdict in (
            ("readiness_gate", "1 while the gate is passed.", Verdict.PASS),
            (
                "readiness_gate_unknown",
                "1 while the gate's answer is not known, which is never ready.",
                Verdict.UNKNOWN,
            ),
        ):
            family = GaugeMetricFamily(PREFIX + name, text, labels=["migration", "gate"])
            for gate in gates:
                family.add_metric([self._migration, gate.name], float(gate.verdict is verdict))
            yield family

    def _family(self, gauge: Gauge | LabelledGauge) -> GaugeMetricFamily:
        more = [gauge.label] if isinstance(gauge, LabelledGauge) else []
        return GaugeMetricFamily(PREFIX + gauge.name, gauge.help, labels=["migration", *more])

    def _snapshot_rows(self, sample: Sample) -> CounterMetricFamily:
        family = CounterMetricFamily(
            PREFIX + "snapshot_rows", "Rows copied by the load.", labels=["migration", "table"]
        )
        other = 0
        for number, table in enumerate(sample.tables or ()):
            if number < MAX_TABLES:
                family.add_metric([self._migration, table.source], table.rows_loaded)
            else:
                other += table.rows_loaded
        if other:
            family.add_metric([self._migration, OTHER], other)
        return family
