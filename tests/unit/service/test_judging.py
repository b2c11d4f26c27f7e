"""What evidence comes to: a status, a risk and next steps that hold for whoever was not there."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cdc_migrator.control.migration import Phase
from cdc_migrator.model.gates import passes
from cdc_migrator.monitor.sample import LoadSample
from cdc_migrator.service.evidence import Back, Counted, Evidence, Said
from cdc_migrator.service.journal import Journal
from cdc_migrator.service.judging import (
    MEANING,
    Level,
    Status,
    availability,
    judge,
    progress,
    stall,
)
from tests.support.evidence import (
    COMPLETED,
    EVERY,
    FORWARD,
    NOW,
    ORDERS,
    REHEARSED,
    ROLLED_BACK,
    SAMPLE,
    SILENT,
    STREAMING,
    SWITCHED,
    UNDONE,
    attempt,
    entries,
)

AGAIN = attempt(3, "done", 550, opened=True)
HALF = replace(SWITCHED, state="draining", opened_at=None, ended_at=None)


@pytest.mark.parametrize(
    ("known", "status"),
    [
        (STREAMING, Status.IN_PROGRESS),
        (COMPLETED, Status.COMPLETED),
        (ROLLED_BACK, Status.ROLLED_BACK),
        (replace(ROLLED_BACK, attempts=(SWITCHED, AGAIN)), Status.COMPLETED),
        (replace(STREAMING, attempts=(HALF,)), Status.IN_PROGRESS),
        (replace(STREAMING, attempts=(SWITCHED, UNDONE)), Status.COMPLETED),
        (SILENT, Status.UNKNOWN),
    ],
    ids=["streaming", "open", "back", "forward-again", "half", "undone-later", "silent"],
)
def test_the_status_is_that_of_the_side_that_was_opened_last(
    known: Evidence, status: Status
) -> None:
    """An attempt that was undone, or a rehearsal, has opened nothing."""
    assert judge(known).status is status


def test_a_silent_source_leaves_the_status_to_the_targets_phase() -> None:
    """It alone knows whether anybody went back."""
    assert judge(replace(COMPLETED, back=None)).status is Status.COMPLETED
    assert judge(replace(ROLLED_BACK, back=None)).status is Status.ROLLED_BACK


def test_progress_counts_phases_and_what_is_known_of_the_present_one() -> None:
    """Monotonic through the migration's life; unknown where nobody tells."""

    def of(phase: Phase, **changes: object) -> float:
        sample = replace(SAMPLE, phase=phase, **changes)
        found = progress(replace(STREAMING, sample=sample)).fraction
        assert found is not None
        return found

    way = [of(Phase.SCHEMA), of(Phase.LOAD, load=LoadSample(0.2, 1.0))]
    way += [of(Phase.LOAD, load=LoadSample(0.9, 1.0)), of(Phase.INDEXES), of(Phase.STREAM)]
    assert way == sorted(way)
    assert of(Phase.SWITCHED) == 1.0
    assert progress(SILENT).fraction is None


def test_a_stall_is_measured_or_at_most_what_the_rows_say() -> None:
    """Or there was none."""
    assert stall(SWITCHED, NOW) == stall(SWITCHED, NOW + timedelta(days=1))
    assert stall(SWITCHED, NOW).seconds == pytest.approx(0.0843)
    undone = stall(UNDONE, NOW)
    assert undone.seconds == pytest.approx(6.0)
    assert not undone.exact
    assert stall(replace(UNDONE, fenced_at=None), NOW).seconds is None


def test_availability_is_one_minus_all_stalls_over_the_duration() -> None:
    """Both directions; unknown without the target, and told where the source is silent."""
    both = availability(ROLLED_BACK)
    assert both.over_seconds == 36_000
    assert both.stalled_seconds == pytest.approx(6.0 + 2 * 0.0843)
    assert both.fraction == pytest.approx(1 - both.stalled_seconds / 36_000)
    assert "3 attempts" in both.how
    assert availability(SILENT).fraction is None
    assert "unknown" in availability(replace(COMPLETED, back=None)).how


def test_going_back_is_possible_unknown_or_not_and_says_why() -> None:
    """Never a guess."""
    given_up = replace(COMPLETED, back=Back(False), said=Said(without_way_back="small"))
    assert judge(COMPLETED).way_back.available is True
    assert judge(STREAMING).way_back.available is True
    assert judge(given_up).way_back.available is False
    assert "small" in judge(given_up).way_back.why
    assert judge(replace(COMPLETED, back=None)).way_back.available is None
    assert judge(SILENT).way_back.available is None


def test_a_trigger_that_fired_is_an_issue_until_it_is_fine_again() -> None:
    """With its numbers; afterwards it is only counted."""
    numbers = {"rule": "error_rate", "number": 0.04, "threshold": 0.01, "below": False}
    firing = (450.0, "watch-fired", numbers)
    clear = (460.0, "watch-cleared", {"rule": "error_rate"})

    def of(*told: tuple[float, str, dict[str, Any]]) -> list[tuple[Level, str]]:
        journal = replace(FORWARD, entries=entries(*told))
        found = judge(replace(COMPLETED, journals=(journal,))).issues
        return [(one.level, one.text) for one in found if "trigger" in one.text]

    assert [level for level, _ in of(firing)] == [Level.MEDIUM]
    assert "error_rate (0.04, above 0.01)" in of(firing)[0][1]
    assert [level for level, _ in of(firing, clear)] == [Level.LOW]
    assert [level for level, _ in of(firing, clear, firing)] == [Level.MEDIUM, Level.LOW]


def altered(journal: Journal) -> Journal:
    first, second, *rest = journal.entries
    return replace(journal, entries=(first, replace(second, actor="eve"), *rest))


@pytest.mark.parametrize(
    ("known", "word"),
    [
        (replace(STREAMING, differences=(Counted(ORDERS, "open", 3, NOW),)), "3 rows differ"),
        (replace(COMPLETED, journals=(altered(FORWARD),)), "not as it was written"),
        (replace(STREAMING, attempts=(HALF,)), "has not ended"),
        (SILENT, "does not answer"),
        (
            replace(
                COMPLETED,
                sample=replace(
                    COMPLETED.sample,
                    stream=replace(COMPLETED.sample.stream, ignored_since_left=4),
                ),
            ),
            "after it was left",
        ),
    ],
    ids=["differences", "journal", "half", "silent", "stray-writes"],
)
def test_what_is_grave_makes_the_risk_high_and_comes_first(known: Evidence, word: str) -> None:
    """With what it is."""
    judged = judge(known)
    assert judged.issues[0].level is Level.HIGH
    assert judged.risk.level is Level.HIGH
    assert any(word in reason for reason in judged.risk.reasons)


def test_risk_is_low_only_where_nothing_is_open() -> None:
    """A gate that is not passed, or the lack of a way back, is not nothing."""
    ready = replace(STREAMING, gates=(passes("load", "all is loaded"),))
    assert judge(ready).risk.level is Level.LOW
    assert judge(COMPLETED).risk.level is Level.LOW
    assert judge(STREAMING).risk.level is Level.MEDIUM
    assert judge(ROLLED_BACK).risk.level is Level.MEDIUM
    assert judge(replace(COMPLETED, back=Back(False))).risk.level is Level.MEDIUM
    assert judge(replace(COMPLETED, back=None)).risk.level is not Level.LOW


def test_the_next_step_is_what_stands_in_the_way() -> None:
    """First rehearse, then cut over; what was begun is ended first."""
    ready = replace(STREAMING, gates=(passes("load", "all is loaded"),))
    assert judge(STREAMING).next == ("Make one.",)
    assert judge(ready).next == ("`cdc-migrator cutover`",)
    assert judge(replace(ready, attempts=())).next == ("`cdc-migrator cutover --rehearse`",)
    assert "End attempt 2" in judge(replace(ready, attempts=(REHEARSED, HALF))).next[0]
    loading = replace(STREAMING, sample=replace(SAMPLE, phase=Phase.LOAD))
    assert "migrate" in judge(loading).next[0]
    assert "finish" in judge(COMPLETED).next[-1]
    assert "readiness" in judge(ROLLED_BACK).next[-1]
    assert all(judge(known).next for known in EVERY.values())


def test_every_phase_has_words() -> None:
    """For who does not know its name."""
    assert set(MEANING) == set(Phase)
