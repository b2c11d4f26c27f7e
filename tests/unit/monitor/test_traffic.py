"""What lies between two looks is a number only where they belong together; so with baselines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_migrator.monitor.baseline import compare, numbers, percentile
from cdc_migrator.monitor.traffic import Counters, Kind, Traffic, between

APP, OURS = 10, 20
BEFORE = Counters(0.0, "epoch", 100, 10, 500.0, {APP: (50, 100.0), OURS: (5, 1.0)}, OURS)
AFTER = Counters(2.0, "epoch", 190, 20, 800.0, {APP: (100, 350.0), OURS: (95, 901.0)}, OURS)


def test_two_looks_give_rates_and_the_mean_of_others_statements() -> None:
    """Ours are left out of the latency where our role is ours alone."""
    found = between(BEFORE, AFTER)
    assert found is not None
    assert (found.throughput, found.error_rate) == (50.0, 0.1)
    assert (found.kind, found.latency_ms) == ("statements", 5.0)


def test_where_others_share_our_role_all_statements_count() -> None:
    """At either look: else a part would be missing."""
    for first, second in ((None, OURS), (OURS, None)):
        found = between(replace(BEFORE, ours=first), replace(AFTER, ours=second))
        assert found is not None
        assert found.calls == 140


def test_without_the_extension_the_latency_is_that_of_transactions() -> None:
    """By the time that sessions were active; before PostgreSQL 14 it is unknown."""
    found = between(replace(BEFORE, statements=None), AFTER)
    assert found is not None
    assert (found.kind, found.latency_ms) == ("transactions", 3.0)
    found = between(replace(BEFORE, statements=None, active_ms=None), AFTER)
    assert found is not None
    assert found.latency_ms is None


def test_counters_that_were_set_back_give_no_number() -> None:
    """Nor does a server that was started anew."""
    assert between(BEFORE, replace(AFTER, epoch="later")) is None
    assert between(AFTER, replace(BEFORE, at=4.0)) is None
    found = between(BEFORE, replace(AFTER, statements={APP: (40, 10.0)}))
    assert found is not None
    assert found.latency_ms is None


def test_nothing_done_is_no_rate_of_errors() -> None:
    """Zero of zero is unknown, not zero."""
    found = between(BEFORE, replace(BEFORE, at=3.0))
    assert found is not None
    assert (found.error_rate, found.latency_ms) == (None, None)
    assert found.throughput == 0.0


def look(kind: Kind, calls: int, busy: float, commits: int = 10) -> Traffic:
    return Traffic(1.0, commits, 0, kind, calls, busy)


def test_a_baseline_weighs_the_mean_and_ranks_the_looks() -> None:
    """A look without calls has no latency; it has a throughput."""
    found = numbers(
        [look("statements", 1, 10.0), look("statements", 9, 9.0), look("statements", 0, 0.0)]
    )
    assert found["latency_mean_ms"] == pytest.approx(1.9)
    assert (found["latency_p50_ms"], found["latency_p95_ms"]) == (1.0, 10.0)
    assert found["throughput_per_second"] == 10.0
    assert numbers([])["latency_mean_ms"] is None
    assert numbers([])["throughput_per_second"] is None


def test_percentiles_are_values_that_were_seen() -> None:
    """The smallest that so many do not exceed."""
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 0.0, 1.0)] == [
        50.0,
        95.0,
        99.0,
        1.0,
        100.0,
    ]


def verdicts(latency: float, throughput: float, kind: Kind = "statements") -> list[bool | None]:
    ours = {"latency_mean_ms": 10.0, "latency_p50_ms": 10.0, "latency_p95_ms": 10.0,
            "latency_p99_ms": 10.0, "throughput_per_second": 100.0}  # fmt: skip
    theirs = {**dict.fromkeys(ours, latency), "throughput_per_second": throughput}
    found = compare(("statements", ours), (kind, theirs), 0.1)
    return [found[0].within, found[-1].within]


def test_the_target_may_be_slower_or_do_less_by_the_tolerance() -> None:
    """Better is always good enough."""
    assert verdicts(10.9, 91.0) == [True, True]
    assert verdicts(11.2, 100.0) == [False, True]
    assert verdicts(10.0, 89.0) == [True, False]
    assert verdicts(0.1, 1e6) == [True, True]


def test_latencies_of_different_kinds_do_not_compare() -> None:
    """Statements are faster than the transactions that they make up."""
    assert verdicts(10.0, 100.0, "transactions") == [None, True]


def test_what_a_side_does_not_know_does_not_compare() -> None:
    """Which is not good enough."""
    found = compare(("statements", {}), ("statements", {"latency_mean_ms": 1.0}), 0.1)
    assert {one.within for one in found} == {None}
