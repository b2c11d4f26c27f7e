"""Waiting between attempts, for a bounded time."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from cdc_migrator.errors import Failed

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """For how long errors that pass are tried again, and what ends that early.

    Attributes:
        seconds: from the first attempt to the last.
        stopping: nothing is tried again once it is set.
    """

    seconds: float
    stopping: threading.Event
    monotonic: Callable[[], float]

    def pause(self, retries: int, began: float, reason: str) -> None:
        """Wait before the next attempt.

        Raises Failed: CDCM-APPLY-UNAVAILABLE: the time is up. CDCM-APPLY-STOPPED.
        """
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**retries)
        pause = longest * random.uniform(0.5, 1.0)
        if self.monotonic() + pause - began > self.seconds:
            raise Failed(
                "CDCM-APPLY-UNAVAILABLE",
                f"the target could not apply a batch for {self.seconds:g} s: {reason}",
                "See the target's log; the same command goes on at the same position.",
            )
        if self.stopping.wait(pause):
            raise Failed(
                "CDCM-APPLY-STOPPED",
                f"stopped while waiting for the target: {reason}",
                "The same command goes on at the same position.",
            )
