"""`status -o json`: the shape that programs read, and a verdict that rests on facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cdc_migrator.control.migration import Phase
from cdc_migrator.monitor.limits import Limits
from cdc_migrator.monitor.sample import (
    ConnectorSample,
    FenceSample,
    LoadSample,
    Note,
    OwnerSample,
    ProofSample,
    Sample,
    SlotSample,
    StreamSample,
)
from cdc_migrator.monitor.status import document
from cdc_migrator.monitor.table_sample import TableSample
from tests.support.samples import NOW, SERVICE, streaming

LIMITS = Limits(without_way_back="a rehearsal", hooks="d1")


def test_the_agreed_keys_are_there() -> None:
    """Those of the machine-readable contract, with numbers where they are known."""
    whole = document(streaming(), LIMITS)
    assert whole["migration"] == "shop"
    assert whole["phase"] == "stream"
    assert whole["lag_seconds"] == 0.05
    assert whole["lag_events"] == 0
    assert whole["dead_letters"] == 0
    assert whole["parked"]["exact"] is True
    assert (whole["ready"]["verdict"], whole["ready"]["reasons"]) == (True, [])
    assert {gate["verdict"] for gate in whole["ready"]["gates"]} == {"pass"}
    assert whole["verified_as_of"] == NOW.isoformat()
    assert whole["reconcile"]["chunks_dirty"] == 2
    assert whole["stages"] == {"capture_seconds": 0.03, "delivery_seconds": 0.02}
    assert whole["catch_up"]["seconds"] == 0
    assert whole["retention"]["unlimited"] is True
    assert whole["servers"]["target"]["connections"] == 9
    first = whole["tables"][0]
    assert first["source"] == first["target"] == "shop.orders"
    assert (first["rows_loaded"], first["events_applied"]) == (120, 16)


def test_what_was_accepted_stays_in_sight() -> None:
    """Each code with its reason, for as long as the settings say so."""
    limits = replace(LIMITS, accepted=(("CDCM-LEFT-JOBS", "made by hand"),))
    assert document(streaming(), LIMITS)["accepted"] == []
    whole = document(streaming(), limits)
    assert whole["accepted"] == [{"code": "CDCM-LEFT-JOBS", "reason": "made by hand"}]


def test_what_is_unknown_is_null() -> None:
    """Nothing that was not measured turns into a zero."""
    whole = document(Sample(at=NOW, migration="shop"), LIMITS)
    for key in (
        "phase",
        "lag_seconds",
        "lag_events",
        "tables",
        "dead_letters",
        "parked",
        "without_way_back",
        "slot",
        "connector",
        "load",
        "service",
        "transactions",
        "verified_as_of",
        "reconcile",
        "catch_up",
        "retention",
    ):
        assert whole[key] is None, key
    for key in ("rates", "stages", "servers", "clocks"):
        assert set(whole[key].values()) == {None}, key
    assert whole["ready"]["verdict"] is False


def test_the_keys_do_not_depend_on_what_is_known() -> None:
    """A reader finds each one always."""
    full, empty = document(streaming(), LIMITS), document(Sample(NOW, "shop"), LIMITS)
    assert list(full) == list(empty)
    stopped = document(streaming(owner=None), LIMITS)
    assert list(full["service"]) == list(stopped["service"])
    assert stopped["service"]["running"] is False


SLOT = SlotSample("cdcm_shop_1", True, True, "reserved", 0)
STREAM = StreamSample("t", 1, 1, NOW, NOW, 30, 0, 3)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"phase": Phase.LOAD}, "the phase is load, not stream"),
        ({"last_error": {"code": "CDCM-X"}}, "the last error stands: CDCM-X"),
        ({"owner": None}, "the service does not run: nothing is applied"),
        (
            {"owner": OwnerSample("me", 60.0, SERVICE)},
            "the service does not run: nothing is applied",
        ),
        (
            {"fence": FenceSample("partial", ("shop.a", "shop.b"), ("shop.b",))},
            "not fenced any more on the target, so others may have written there: shop.b",
        ),
        ({"lag_seconds": None}, "the lag is unknown"),
        ({"lag_seconds": 10.5}, "the lag of 10.5 s is above 10 s"),
        (
            {"slot": SlotSample("cdcm_shop_1", False)},
            "the replication slot cdcm_shop_1 is gone from the source",
        ),
        (
            {"slot": SlotSample("cdcm_shop_1", True, False, "lost")},
            "the slot's write-ahead log is lost",
        ),
        (
            {"slot": SlotSample("cdcm_shop_1", True, False, "reserved")},
            "nobody reads from the replication slot",
        ),
        (
            {"connector": ConnectorSample("cdcm-shop-1", False)},
            "the connector cdcm-shop-1 does not exist",
        ),
        (
            {"connector": ConnectorSample("cdcm-shop-1", True, "RUNNING", ("FAILED",))},
            "the connector does not run (connector and tasks: RUNNING, FAILED)",
        ),
        (
            {"connector": ConnectorSample("cdcm-shop-1", True, "RUNNING", ())},
            "the connector does not run (connector and tasks: RUNNING)",
        ),
        (
            {"stream": STREAM},
            "3 transactions were applied although their start was not proven, "
            "and their tables were not compared since",
        ),
        (
            {"not_added": ("s.a", "s.b", "s.c", "s.d")},
            "not part of the migration: s.a, s.b, s.c and 1 more",
        ),
        (
            {"proofs": ProofSample(None, 9, 9, 2, 0, 0)},
            "the content of 2 tables was never compared",
        ),
        (
            {"proofs": ProofSample(NOW, 9, 0, 0, 3, 1)},
            "3 rows differ",
        ),
        (
            {"proofs": None},
            "it is not known whether the content of both sides was compared",
        ),
        (
            {"notes": (Note("source", "CDCM-X", "no answer"),)},
            "source could not be measured: no answer",
        ),
    ],
)
def test_each_fact_gives_its_reason(changes: dict[str, Any], reason: str) -> None:
    """And only its own."""
    assert document(streaming(**changes), LIMITS)["ready"]["reasons"] == [reason]


def test_time_left_is_told_from_one_percent_on() -> None:
    """By what the done part took."""
    table = TableSample("a.b", "a.b", "loading", 9, 1, 1, 0, 0, 0, 0)
    for fraction, left in ((0.005, None), (0.25, 30.0), (1.0, 0.0)):
        sample = streaming(phase=Phase.LOAD, tables=(table,), load=LoadSample(fraction, 10.0))
        assert document(sample, LIMITS)["load"]["seconds_left"] == left
