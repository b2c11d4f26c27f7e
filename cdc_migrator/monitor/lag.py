"""How far the target is behind, in seconds and in events, and how fast it moves. Pure.

The source commits a heartbeat each second, so on a working stream something is applied at least
that often, also when the application is silent: a silence is a stall and never "no lag".
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime

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
class Rates:
    """Applied per second."""

    transactions: float
    events: float


class LagWindow:
    """Whether the lag rises, over the last `seconds`. Time is given, never read."""

    def __init__(self, seconds: float = 30.0) -> None:
        self._seconds = seconds
        self._points: deque[tuple[float, float]] = deque()

    def add(self, at: float, lag: float | None) -> None:
        """Note the lag at monotonic time `at`; one that is unknown says nothing."""
        while self._points and self._points[0][0] < at - self._seconds:
            self._points.popleft()
        if lag is not None:
            self._points.append((at, lag))

    def rising(self) -> bool | None:
        """The newer half's mean is above the older half's by a fifth and by a heartbeat, at least.

        None with too few points to say so.
        """
        half = len(self._points) // 2
        if half < 2:
            return None
        lags = [lag for _, lag in self._points]
        before, after = sum(lags[:half]) / half, sum(lags[-half:]) / half
        return after > max(1.2 * before, before + HEARTBEAT_SECONDS)


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
