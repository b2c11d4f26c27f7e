"""When a dead child is started again. Decides; time arrives as lengths of lives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHORT_LIFE_SECONDS = 10.0
PATIENCE = 5
DELAYS = (0.2, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it again after ``delay`` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Leave it dead; ``reason`` is for a person."""

    reason: str


def decide(lives: Sequence[float]) -> Restart | GiveUp:
    """What to do after a death. ``lives`` are the lengths in seconds of the child's lives, oldest
    first, the one that just ended last.

    A child that served for a while and was killed comes back at once, however often that
    happens. One that dies again and again while starting has a fault that no restart mends.
    """
    short = 0
    for life in reversed(lives):
        if life >= SHORT_LIFE_SECONDS:
            break
        short += 1
    if short >= PATIENCE:
        return GiveUp(f"died {short} times in a row within {SHORT_LIFE_SECONDS:.0f} s of its start")
    return Restart(DELAYS[min(short, len(DELAYS) - 1)])
