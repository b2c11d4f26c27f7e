"""How far the target is behind, in seconds and in events, and how fast it moves. Pure.

The source commits a heartbeat each second, so on a working stream something is applied at least
that often, also when the application is silent: a silence is a stall and never "no lag".
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime

from cdc_migrator.monitor.sample import CatchUp

HEARTBEAT_SECONDS = 1.0
FRESH_SECONDS = 3 * HEARTBEAT_SECONDS


def lag_seconds(
    committed_at: datetime | None,
    applied_at: datetime | None,
    now: datetime,
    target_ahead: float | None = None,
) -> float | None:
    """Lag from source commit to target commit.

    While something was applied within `FRESH_SECONDS`, the time that the last transaction took;
    once nothing is applied any more, the age of the last one: it grows until the stream moves.

    Args:
        committed_at: the source's clock at the commit of the last applied transaction.
        applied_at, now: the target's clock, at its application and at present.
        target_ahead: seconds by which the target's clock is ahead; None is taken as none.

    Returns seconds, at least 0, or None before anything was applied.
    """
    if committed_at is None or applied_at is None:
        return None
    stalled = (now - applied_at).total_seconds() > FRESH_SECONDS
    until = now if stalled else applied_at
    return max(0.0, (until - committed_at).total_seconds() - (target_ahead or 0.0))


def events_pending(
    next_offset: int | None, end_offset: int | None, at_end: bool | None
) -> tuple[int | None, bool | None]:
    """(records not yet applied, whether that is exact).

    Offsets have holes, so the difference is an upper bound; it is 0 for certain only where it
    is 0, or where the reader has seen the end of the log and everything read is applied.
    """
    if at_end:
        return 0, True
    if next_offset is None or end_offset is None:
        return None, None
    difference = max(end_offset - next_offset, 0)
    return difference, difference == 0


@dataclass(frozen=True, slots=True)
class Passage:
    """The way of the last transaction that was applied; seconds since 1970 UTC.

    Attributes:
        committed: on the source, by its clock.
        sent: to the topic, by Connect's clock.
        applied: on the target, by the service's clock.
    """

    committed: float
    sent: float
    applied: float


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds of the lag: from the source's commit into the topic (`capture`), and from there to
    the target's commit (`delivery`)."""

    capture: float
    delivery: float


def stages(passage: Passage, now: float, at_end: bool, source_ahead: float | None = None) -> Stages:
    """Where the last applied transaction spent its time; together the lag.

    Once nothing is applied any more, the time since grows in the stage that holds it up: where all
    that is in the topic is applied (`at_end`) it is the capture, else the delivery.

    Args:
        now: by the service's clock, like `passage.applied`.
        source_ahead: seconds by which the source's clock is ahead of the service's; None is taken
            as none. Connect's clock is taken for the service's.
    """
    silent = now - passage.applied
    stalled = silent if silent > FRESH_SECONDS else 0.0
    capture = passage.sent - (passage.committed - (source_ahead or 0.0))
    delivery = passage.applied - passage.sent
    if at_end:
        capture += stalled
    else:
        delivery += stalled
    return Stages(max(0.0, capture), max(0.0, delivery))


def catch_up(
    applied_per_second: float | None,
    arriving_per_second: float | None,
    pending: int | None,
    behind_seconds: float | None,
) -> CatchUp | None:
    """How long until nothing is pending, if both rates stay as they are.

    A stream whose lag is below `FRESH_SECONDS` has caught up: what is pending then is what has just
    come. None where a rate, what is pending or the lag is not known.

    Args:
        applied_per_second, arriving_per_second: records of the topic.
        pending: records, at most. behind_seconds: the lag.
    """
    if applied_per_second is None or arriving_per_second is None:
        return None
    if pending is None or behind_seconds is None:
        return None
    gain = applied_per_second - arriving_per_second
    left: float | None = None
    if pending == 0 or behind_seconds <= FRESH_SECONDS:
        left = 0.0
    elif gain > 0:
        left = pending / gain
    return CatchUp(left, applied_per_second, arriving_per_second)


def until_used_up(amount: float | None, per_second: float | None) -> float | None:
    """Seconds until `amount` is used up at this rate; None where unknown, or never."""
    if amount is None or not per_second or per_second < 0:
        return None
    return max(amount, 0.0) / per_second


def retention_left(
    limit: float | None, committed_at: datetime | None, now: datetime
) -> float | None:
    """At least so many seconds is the next record to apply still kept.

    It came into the topic after the last applied transaction was committed on the source, and is
    kept for `limit` seconds; None without a limit, or where nothing was applied yet.
    """
    if limit is None or committed_at is None:
        return None
    return max(0.0, limit - (now - committed_at).total_seconds())


class Slope:
    """How fast a number that only grows does, over the last `seconds`. Time is given, never read.

    Unknown with fewer than two points, or before they are a second apart.
    """

    def __init__(self, seconds: float = 30.0) -> None:
        self._seconds = seconds
        self._points: deque[tuple[float, float]] = deque()

    def add(self, at: float, value: float | None) -> None:
        """Note the number at monotonic time `at`; unknown, or below the last one, starts anew."""
        if value is None or (self._points and value < self._points[-1][1]):
            self._points.clear()
        if value is None:
            return
        self._points.append((at, value))
        while len(self._points) > 2 and self._points[1][0] <= at - self._seconds:
            self._points.popleft()

    def per_second(self) -> float | None:
        """The slope between the window's first and last point."""
        if len(self._points) < 2:
            return None
        (start, first), (end, last) = self._points[0], self._points[-1]
        return (last - first) / (end - start) if end - start >= 1.0 else None


@dataclass(frozen=True, slots=True)
class Rates:
    """Applied per second."""

    transactions: float
    events: float


class RateWindow:
    """Rates over the last `seconds`, from totals that only grow. Time is given, never read."""

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._points: deque[tuple[float, int, int]] = deque()

    def add(self, at: float, transactions: int, events: int) -> None:
        """Note the totals at monotonic time `at`; a total below the last one starts anew."""
        if self._points and (transactions < self._points[-1][1] or events < self._points[-1][2]):
            self._points.clear()
        self._points.append((at, transactions, events))
        # One point at or before the window's start stays, so that the window is full.
        while len(self._points) > 2 and self._points[1][0] <= at - self._seconds:
            self._points.popleft()

    def rates(self) -> Rates | None:
        """The rates, or None with fewer than two points."""
        if len(self._points) < 2:
            return None
        (start, first_t, first_e), (end, last_t, last_e) = self._points[0], self._points[-1]
        elapsed = end - start
        if elapsed <= 0:
            return None
        return Rates((last_t - first_t) / elapsed, (last_e - first_e) / elapsed)
