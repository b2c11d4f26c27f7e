"""What a side does in ordinary times, in a few numbers, and how both sides' compare. Pure.

The window is cut into looks of about a second. The latency's percentiles are those of the looks'
means, so a single slow statement hides in its look; the mean is that of the whole window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cdc_migrator.monitor.traffic import Kind, Traffic

MEAN = "latency_mean_ms"
THROUGHPUT = "throughput_per_second"
ERRORS = "error_rate"
_LATENCIES = {"latency_p50_ms": 0.5, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}


@dataclass(frozen=True, slots=True)
class Compared:
    """One number on both sides; None where a side has none, or not of the same kind.

    Attributes:
        change: of the target against the source, as a share of it: 0.1 is a tenth more.
        within: whether the target is as good, up to the tolerance; None: it cannot be told.
    """

    number: str
    source: float | None
    target: float | None
    change: float | None
    within: bool | None


def numbers(looks: Sequence[Traffic]) -> dict[str, Any]:
    """The baseline of these looks, which are all of one kind; what is unknown is None."""
    commits = sum(one.commits for one in looks)
    rollbacks = sum(one.rollbacks for one in looks)
    seconds = sum(one.seconds for one in looks)
    known = [one for one in looks if one.latency_ms is not None]
    calls = sum(one.calls or 0 for one in known)
    means = sorted(one.latency_ms for one in known if one.latency_ms is not None)
    whole = commits + rollbacks
    return {
        "looks": len(looks),
        "transactions": whole,
        THROUGHPUT: whole / seconds if seconds > 0 else None,
        ERRORS: rollbacks / whole if whole else None,
        MEAN: sum(one.busy_ms or 0.0 for one in known) / calls if calls else None,
        **{name: percentile(means, share) for name, share in _LATENCIES.items()},
    }


def percentile(ascending: Sequence[float], share: float) -> float | None:
    """The smallest value that `share` of all do not exceed; None of none."""
    if not ascending:
        return None
    return ascending[max(math.ceil(share * len(ascending)), 1) - 1]


def compare(
    source: tuple[Kind, Mapping[str, Any]],
    target: tuple[Kind, Mapping[str, Any]],
    tolerance: float,
) -> list[Compared]:
    """Latency and throughput of both sides' baselines, each with its kind.

    Args:
        tolerance: by which share the target may be slower, or do less.
    """
    alike = source[0] == target[0]
    compared = []
    for name in (MEAN, *_LATENCIES, THROUGHPUT):
        ours, theirs = source[1].get(name), target[1].get(name)
        if not ours or theirs is None or not (alike or name == THROUGHPUT):
            compared.append(Compared(name, ours, theirs, None, None))
            continue
        change = theirs / ours - 1
        worse = -change if name == THROUGHPUT else change
        compared.append(Compared(name, ours, theirs, change, worse <= tolerance))
    return compared
