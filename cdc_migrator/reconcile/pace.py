"""How much of the time a comparison works: a share, and hardly at all while the stream is behind.

Whoever applies and whoever compares read and write on the same servers; what has to catch up comes
first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psycopg

from cdc_migrator.control import progress
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.reconcile.options import BEHIND_SHARE, PassOptions

_LOOK_SECONDS = 1.0


class Pace:
    """Of one pass, for all its workers.

    Args:
        control: a session on the target, used under `lock` alone.
        stop: ends a pause.
    """

    def __init__(
        self,
        control: psycopg.Connection,
        lock: threading.RLock,
        options: PassOptions,
        stop: threading.Event,
    ) -> None:
        self._control = control
        self._lock = lock
        self._options = options
        self._stop = stop
        self._lag = 0.0
        self._look_again = 0.0

    def resting(self, check: Callable[[], None]) -> Callable[[float], None]:
        """After each statement, which took so many seconds, leave the rest of the time to others.

        Not for so long that the point would be lost before the unit is read.

        Args:
            check: called after each pause; may raise.
        """
        left = self._options.max_age / 2

        def rest(worked: float) -> None:
            nonlocal left
            rested = 0.0
            # Looked at again meanwhile: who has caught up need not be spared any longer.
            while (due := min(left, worked * (1.0 / self._share() - 1.0)) - rested) > 0:
                pause = min(due, _LOOK_SECONDS)
                self._stop.wait(pause)
                rested += pause
                check()
            left -= rested
            check()

        return rest

    def _share(self) -> float:
        now = time.monotonic()
        with self._lock:
            if now >= self._look_again:
                with speaking("target", "looking how far the stream is behind"):
                    self._lag = progress.lag(self._control) or 0.0
                self._look_again = now + _LOOK_SECONDS
            behind = self._lag > self._options.max_lag
        # Of all workers together: each of them keeps both servers busy.
        spared = BEHIND_SHARE / self._options.workers
        return min(self._options.share, spared) if behind else self._options.share
