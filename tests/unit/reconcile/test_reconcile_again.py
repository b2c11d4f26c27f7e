"""A table that could not be read at a point is tried again, for a minute and five times."""

from __future__ import annotations

from itertools import islice

from cdc_migrator.reconcile.again import attempts


class Time:
    """A clock that only waiting and working move on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)

    def clock(self) -> float:
        return self.now


def test_short_attempts_go_on_for_a_minute() -> None:
    """There are enough of them to meet a moment between two TRUNCATE of a busy application."""
    time = Time()
    made = list(attempts(time.wait, time.clock))
    assert made == list(range(len(made)))
    assert 55 < len(made) < 75
    assert time.now - 1000.0 >= 60.0


def test_the_pause_grows_up_to_a_second() -> None:
    """The first is short: most tables that moved are still by then."""
    time = Time()
    list(islice(attempts(time.wait, time.clock), 8))
    assert time.pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_long_attempts_are_five() -> None:
    """A chunk that takes longer than the minute is not given up after the first time."""
    time = Time()
    count = 0
    for _ in attempts(time.wait, time.clock):
        time.now += 100.0
        count += 1
    assert count == 5
