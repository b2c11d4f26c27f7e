"""What is lost for good is told from what only looks so, and from what is not known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cdc_migrator.control.migration import Phase
from cdc_migrator.model.retained import Retained, RetainedAction
from cdc_migrator.monitor.gates import gates
from cdc_migrator.monitor.ground import CODES, losses, retained_beyond
from cdc_migrator.monitor.ground_facts import GroundSample, SourceIdentity
from cdc_migrator.monitor.limits import Limits
from cdc_migrator.monitor.sample import ConnectorSample, Note, RetentionSample, Sample, SlotSample
from cdc_migrator.monitor.status import document
from tests.support.samples import streaming

HERE = SourceIdentity("71", 1, True, None)
BEYOND = "DebeziumException: The connector is trying to read change stream starting at X […"
GROUND = GroundSample("71", 1, "topic", HERE, "topic")


def standing(**changes: Any) -> Sample:
    return streaming(**{"ground": GROUND, **changes})


def on(**changes: Any) -> dict[str, Any]:
    return {"ground": replace(GROUND, **changes)}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"slot": SlotSample("s", False)}, "CDCM-SLOT-LOST"),
        ({"slot": SlotSample("s", True, False, "lost")}, "CDCM-SLOT-LOST"),
        ({"slot": SlotSample("s", True, False, "unreserved")}, None),
        ({"slot": None}, None),
        (on(source=replace(HERE, timeline=2)), "CDCM-SOURCE-CHANGED"),
        (on(source=replace(HERE, system="72")), "CDCM-SOURCE-CHANGED"),
        (on(source=replace(HERE, timeline=None, system=None)), None),
        (on(source=replace(HERE, published=False)), "CDCM-PUBLICATION-LOST"),
        (
            {
                "connector": ConnectorSample(
                    "c",
                    True,
                    "RUNNING",
                    ("FAILED",),
                    'ERROR: publication "cdcm_shop" does not exist',
                )
            },
            "CDCM-PUBLICATION-LOST",
        ),
        ({"connector": ConnectorSample("c", True, "RUNNING", ("FAILED",), "a timeout")}, None),
        (
            {"connector": ConnectorSample("c", True, "RUNNING", ("FAILED",), BEYOND)},
            "CDCM-SLOT-LOST",
        ),
        (on(present_topic_id="other"), "CDCM-STREAM-TOPIC-ANEW"),
        (on(present_topic_id="other", topic_id=None), None),
        (on(present_topic_id=None), None),
        ({"retention": RetentionSample(None, None, False, 91)}, "CDCM-STREAM-GAP"),
        ({"retention": RetentionSample(None, None, False, 90)}, None),
        ({"end_offset": 89}, "CDCM-STREAM-GAP"),
        ({"end_offset": 90}, None),
        (
            {"notes": (Note("kafka", "CDCM-STREAM-TOPIC-MISSING", "gone"),)},
            "CDCM-STREAM-TOPIC-MISSING",
        ),
        ({"notes": (Note("kafka", "CDCM-KAFKA-UNREACHABLE", "away"),)}, None),
        ({"slot": SlotSample("s", False), "phase": Phase.SWITCHED}, None),
        ({"slot": SlotSample("s", False), "ground": None}, None),
    ],
)
def test_each_way_of_losing_ground_has_its_code(changes: dict[str, Any], code: str | None) -> None:
    """And what was not measured is not lost."""
    found = [loss.code for loss in losses(standing(**changes))]
    assert found == ([code] if code else [])


def test_what_is_lost_stands_against_leaving_and_is_in_the_document() -> None:
    """With the way out, by its code."""
    for changes, gate in (
        ({"slot": SlotSample("s", False)}, "slot"),
        (on(source=replace(HERE, timeline=2)), "slot"),
        (on(present_topic_id="other"), "runway"),
    ):
        sample = standing(**changes)
        (loss,) = losses(sample)
        (found,) = (one for one in gates(sample, Limits()) if one.name == gate)
        assert (found.verdict, found.remedy) == ("fail", loss.remedy)
        assert document(sample, Limits())["ground"]["lost"] == [loss.as_dict()]
        assert loss.code in CODES
        assert "--new-capture" in loss.remedy


def test_log_beyond_a_threshold_is_told_by_how_far() -> None:
    """Nothing without thresholds; the limit comes before the warning."""
    kept = SlotSample("cdcm_shop_1", True, True, "reserved", 8 << 20)
    for retained, level in (
        (Retained(), 0),
        (Retained(warn=16 << 20), 0),
        (Retained(warn=4 << 20), 1),
        (Retained(warn=1 << 20, limit=4 << 20), 2),
    ):
        sample = standing(slot=kept, **on(retained=retained))
        found, told = retained_beyond(sample)
        assert (found, told is None) == (level, level == 0)
        runway = next(one for one in gates(sample, Limits()) if one.name == "runway")
        assert runway.passed == (level < 2)


def test_a_slot_is_dropped_only_by_its_confirmed_name() -> None:
    """What was confirmed for one capture does not hold for the next."""
    drop = RetainedAction.DROP_SLOT
    assert Retained(1, 2, drop, "cdcm_shop_1").may_drop("cdcm_shop_1")
    assert not Retained(1, 2, drop, "cdcm_shop_1").may_drop("cdcm_shop_2")
    assert not Retained(1, 2, drop, None).may_drop("cdcm_shop_1")
    assert not Retained(1, 2, RetainedAction.ALERT, "cdcm_shop_1").may_drop("cdcm_shop_1")
