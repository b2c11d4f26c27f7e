"""The cutover's transition table: complete, and without a way to get stuck."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc_migrator.cutover.machine import (
    BEYOND,
    ENDED,
    STALLED,
    TABLE,
    IllegalSignal,
    Signal,
    State,
    after,
    diagram,
)

PAGE = Path(__file__).parents[3] / "docs" / "cutover.md"
WORKING = [state for state in State if state not in ENDED]


def test_every_state_can_be_done_and_found_broken_off() -> None:
    """Whatever state a dead process leaves behind, there is a way on."""
    for state in WORKING:
        for signal in (Signal.OK, Signal.FAILED, Signal.BROKEN, Signal.LATE):
            assert after(state, signal) in State


def test_from_every_state_an_end_is_reached() -> None:
    """Following what happens when nothing fails any more leads to an end, from anywhere."""
    for state in WORKING:
        for first in (Signal.OK, Signal.FAILED, Signal.BROKEN, Signal.LATE):
            found = after(state, first)
            for _ in State:
                found = found if found in ENDED else after(found, Signal.OK)
            assert found in ENDED


def test_nothing_leads_back_from_an_open_target() -> None:
    """Behind the point of no return nothing is undone; and only opening leads there."""
    for (state, signal), follows in TABLE.items():
        assert not (state in BEYOND and follows not in BEYOND), (state, signal)
        assert not (follows in BEYOND and state not in BEYOND and state is not State.OPENING)


def test_a_late_or_failed_stall_is_undone() -> None:
    """No state in which writers wait goes on when its time is up."""
    for state in STALLED:
        assert after(state, Signal.LATE) is State.UNDOING
        assert after(state, Signal.FAILED) is State.UNDOING


@pytest.mark.parametrize("state", sorted(ENDED))
def test_an_illegal_signal_raises(state: State) -> None:
    """An end takes no signal, and says so."""
    for signal in Signal:
        with pytest.raises(IllegalSignal):
            after(state, signal)


def test_the_documentation_shows_this_table() -> None:
    """`docs/cutover.md` holds the diagram that the table gives."""
    assert f"```mermaid\n{diagram()}```" in PAGE.read_text()
