"""What is still to be done by the workers of a pass: the lowest rank first, then as it came.

It is over when nothing is left and nobody works, for who works may find more to do.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from cdc_migrator.reconcile.chunks import Unit
from cdc_migrator.reconcile.expressions import Hashing
from cdc_migrator.reconcile.pairs import Pair

# Chunks whose proofs are only old have the time of these as their rank.
TO_PLAN = -2.0
NEEDED = -1.0


@dataclass(frozen=True, slots=True)
class Job:
    """A table to be planned (no unit), or a unit to be proven."""

    pair: Pair
    unit: Unit | None
    hashing: Hashing


class Jobs:
    """Shared by the workers; thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._todo: list[tuple[float, int, Job]] = []
        self._number = count()
        self._busy = 0
        self._stopped = False

    @property
    def over(self) -> bool:
        """Whether all is done."""
        with self._changed:
            return not self._todo and not self._busy

    def add(self, rank: float, job: Job) -> None:
        """One more."""
        with self._changed:
            heappush(self._todo, (rank, next(self._number), job))
            self._changed.notify_all()

    def take(self) -> Job | None:
        """The next one, to be followed by `done`; None when it is over or stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._todo or not self._busy or self._stopped)
            if self._stopped or not self._todo:
                return None
            self._busy += 1
            return heappop(self._todo)[2]

    def done(self) -> None:
        """What was taken needs no more work."""
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Nobody takes any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
