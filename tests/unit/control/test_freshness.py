"""Since when all was compared, from the moments at which comparisons began."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cdc_migrator.control.freshness import compared_up_to, thinned

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def test_the_last_point_before_the_oldest_mark_counts() -> None:
    """A mark with the number that was given last by then may be older than the point."""
    points = [(ago(30), 10), (ago(20), 15), (ago(10), 15)]
    assert compared_up_to(points, 16) == ago(10)
    assert compared_up_to(points, 15) == ago(30)
    assert compared_up_to(points, 11) == ago(30)
    assert compared_up_to(points, 10) is None
    assert compared_up_to([], 1) is None


def test_old_points_are_wide_apart() -> None:
    """Rounds all the time for a day stay few, and recent ones are close together."""
    points: list[tuple[datetime, int]] = []
    for second in range(0, 90_000, 3):
        points = thinned(
            [*points, (NOW + timedelta(seconds=second), second)], NOW + timedelta(seconds=second)
        )
    end = NOW + timedelta(seconds=90_000)
    assert 50 < len(points) < 400
    assert end - points[-1][0] < timedelta(seconds=120)
    assert end - points[0][0] <= timedelta(days=1)
    ages = [(end - at).total_seconds() for at, _ in points]
    assert min(abs(age - 900) for age in ages) < 100
