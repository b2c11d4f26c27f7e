"""/metrics shows the sample's numbers under declared names, and nothing that is unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cdc_migrator.control.migration import Phase
from cdc_migrator.model.changes import Op
from cdc_migrator.monitor.gauges import GAUGES, LABELLED
from cdc_migrator.monitor.metrics import MAX_TABLES, OTHER, PREFIX, Metrics
from cdc_migrator.monitor.sample import FenceSample, Note, RetentionSample, Sample, SlotSample
from cdc_migrator.monitor.schema_sample import Ahead, SchemaSample, WaitedFor
from tests.support.samples import NOW, TABLES, WATCHED, streaming


def scraped(metrics: Metrics) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Values by sample name and labels, as Prometheus reads them."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "migration"))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_the_samples_numbers_are_shown() -> None:
    """The names that dashboards and alerts rely on."""
    metrics = Metrics("shop", "1.2.3")
    metrics.update(streaming())
    found = scraped(metrics)
    for name, value in {
        "end_to_end_lag_seconds": 0.05,
        "events_pending": 0,
        "consumer_lag_records": 10,
        "last_event_applied_timestamp_seconds": NOW.timestamp(),
        "slot_retained_bytes": 5 << 20,
        "slot_active": 1,
        "connector_running": 1,
        "snapshot_expected_rows": 150,
        "snapshot_tables_remaining": 0,
    }.items():
        assert found[PREFIX + name] == {(): value}, name
    assert found[PREFIX + "snapshot_rows_total"][(("table", "shop.orders"),)] == 120
    assert found[PREFIX + "phase"][(("phase", "stream"),)] == 1
    assert sum(found[PREFIX + "phase"].values()) == 1
    assert found[PREFIX + "build_info"] == {(("version", "1.2.3"),): 1}
    assert found["process_resident_memory_bytes"][()] > 1 << 20


def test_changes_of_the_schema_are_counted_by_where_they_are() -> None:
    """Where the stream stands at them, and those that it has not come to; unknown is left out."""
    name, one = PREFIX + "schema_changes_pending", WaitedFor("shop.a", "here", (), ())
    for schema, halted, values in (
        (SchemaSample((), ()), None, {"waiting": 0, "ahead": 0}),
        (SchemaSample((one,), (Ahead("shop.b", "", "t"),)), None, {"waiting": 1, "ahead": 1}),
        (SchemaSample((), None), {"code": "CDCM-SCHEMA-SIDE"}, {"waiting": 1}),
        (None, None, {}),
    ):
        metrics = Metrics("shop", "1")
        metrics.update(streaming(schema=schema, last_error=halted))
        shown = scraped(metrics).get(name, {})
        assert shown == {(("state", state),): value for state, value in values.items()}


def test_servers_parts_and_states_are_told_apart_by_a_label() -> None:
    """With what threatens: time to the slot's limit, a topic that deletes, a fence taken off."""
    metrics = Metrics("shop", "1")
    metrics.update(
        streaming(
            notes=(Note("connect", "CDCM-X", "no answer"),),
            connector=None,
            fence=FenceSample("partial", ("shop.a",), ("shop.a",)),
            retention=RetentionSample(3600.0, None, False, 0),
            retention_seconds_left=1800.0,
            slot_seconds_left=600.0,
        )
    )
    found = scraped(metrics)
    assert found[PREFIX + "connections"] == {
        (("side", "source"),): 12,
        (("side", "target"),): 9,
    }
    assert found[PREFIX + "part_measured"] == {
        (("part", "target"),): 1,
        (("part", "source"),): 1,
        (("part", "connect"),): 0,
        (("part", "kafka"),): 1,
    }
    assert found[PREFIX + "service_state"][(("state", "streaming"),)] == 1
    assert sum(found[PREFIX + "service_state"].values()) == 1
    for name, value in {
        "lag_capture_seconds": 0.03,
        "lag_delivery_seconds": 0.02,
        "slot_limit_seconds": 600,
        "slot_usable": 1,
        "slot_unconfirmed_bytes": 4096,
        "topic_retention_unlimited": 0,
        "topic_retention_runway_seconds": 1800,
        "target_fence_up": 0,
        "target_fence_taken_off_tables": 1,
        "target_clock_ahead_seconds": 0,
        "target_lock_waiters": 0,
        "estimated_catch_up_seconds": 0,
    }.items():
        assert found[PREFIX + name] == {(): value}, name


@pytest.mark.parametrize(
    ("slot", "usable"),
    [
        (SlotSample("s", True, True, "extended"), 1),
        (SlotSample("s", True, True, "unreserved"), 0),
        (SlotSample("s", True, False, "lost"), 0),
        (SlotSample("s", exists=False), 0),
    ],
)
def test_a_slot_that_may_lose_its_log_is_not_usable(slot: SlotSample, usable: int) -> None:
    """Nor is one that is gone."""
    metrics = Metrics("shop", "1")
    metrics.update(streaming(slot=slot))
    assert scraped(metrics)[PREFIX + "slot_usable"] == {(): usable}


def test_what_is_unknown_is_absent() -> None:
    """An alert on absence fires; a zero would soothe."""
    metrics = Metrics("shop", "1")
    for sample in (None, Sample(at=NOW, migration="shop")):
        if sample is not None:
            metrics.update(sample)
        names = set(scraped(metrics))
        assert not {PREFIX + gauge.name for gauge in (*GAUGES, *LABELLED)} & names
    metrics.update(streaming())
    metrics.update(streaming(slot=None))
    assert PREFIX + "slot_retained_bytes" not in scraped(metrics)


def test_batches_are_counted() -> None:
    """By operation and table, with their time."""
    metrics = Metrics("shop", "1")
    events = {("shop.orders", Op.INSERT): 3, ("shop.orders", Op.TRUNCATE): 1}
    metrics.batch_applied(0.015, 2, events, redelivered=1, suspect=0, retries=3)
    metrics.batch_applied(0.015, 1, {("shop.orders", Op.INSERT): 2})
    found = scraped(metrics)
    counted = found[PREFIX + "apply_events_total"]
    assert counted[(("op", "insert"), ("table", "shop.orders"))] == 5
    assert counted[(("op", "truncate"), ("table", "shop.orders"))] == 1
    assert found[PREFIX + "transactions_applied_total"] == {(): 3}
    assert found[PREFIX + "transactions_redelivered_total"] == {(): 1}
    assert found[PREFIX + "transactions_suspect_total"] == {(): 0}
    assert found[PREFIX + "apply_retries_total"] == {(): 3}
    assert found[PREFIX + "apply_batch_seconds_count"] == {(): 2}
    buckets = found[PREFIX + "apply_batch_seconds_bucket"]
    assert buckets[(("le", "0.01"),)] == 0
    assert buckets[(("le", "0.02"),)] == 2


def test_the_number_of_series_is_bounded() -> None:
    """Thousands of tables do not become thousands of series; no row is lost from the sums."""
    metrics = Metrics("shop", "1")
    tables = tuple(replace(TABLES[1], source=f"s.t{n}") for n in range(MAX_TABLES + 50))
    metrics.update(streaming(tables=tables))
    metrics.batch_applied(0.1, 1, {(table.source, Op.UPDATE): 1 for table in tables})
    found = scraped(metrics)
    for name in ("snapshot_rows_total", "apply_events_total"):
        series = found[PREFIX + name]
        assert len(series) == MAX_TABLES + 1
        assert any(("table", OTHER) in labels for labels in series)
    assert sum(found[PREFIX + "apply_events_total"].values()) == MAX_TABLES + 50
    assert sum(found[PREFIX + "snapshot_rows_total"].values()) == 50 * (MAX_TABLES + 50)


def test_two_services_in_a_process_do_not_meet() -> None:
    """Nothing is registered globally."""
    first, second = Metrics("a", "1"), Metrics("b", "1")
    first.batch_applied(1, 1, {})
    assert scraped(second)[PREFIX + "transactions_applied_total"] == {(): 0}


def test_every_name_has_the_unit_and_help_that_prometheus_expects() -> None:
    """Base units, `_total` on counters alone, help on each; `phase` follows the phases."""
    metrics = Metrics("shop", "1")
    metrics.update(streaming(phase=Phase.LOAD))
    metrics.watched(WATCHED)
    metrics.batch_applied(0.1, 1, {("shop.orders", Op.INSERT): 1})
    for family in text_string_to_metric_families(metrics.render().decode()):
        assert family.documentation, family.name
        counters = {s.name for s in family.samples if s.name.endswith("_total")}
        assert bool(counters) == (family.type == "counter"), family.name


def test_the_rules_are_shown_while_somebody_watches() -> None:
    """Number, threshold and state of each; what is not known is absent, and so are they later."""
    metrics = Metrics("shop", "1")
    metrics.watched(WATCHED)
    metrics.watch_fired("error_rate")
    found = scraped(metrics)
    rule = ("rule", "error_rate")
    assert found[PREFIX + "watch_number"] == {(rule,): 0.04, (("rule", "latency"),): 3.5}
    assert found[PREFIX + "watch_threshold"] == {(rule,): 0.01}
    assert found[PREFIX + "watch_action_failed"] == {(rule,): 1, (("rule", "latency"),): 0}
    states = found[PREFIX + "watch_state"]
    assert states[(rule, ("state", "fired"))] == 1
    assert states[(rule, ("state", "fine"))] == 0
    assert states[(("rule", "latency"), ("state", "unknown"))] == 1
    assert found[PREFIX + "watch_fired_total"] == {(rule,): 1, (("rule", "latency"),): 0}
    metrics.watched(())
    assert not {name for name in scraped(metrics) if "watch" in name} - {
        PREFIX + "watch_fired_total"
    }
