"""The alignment point that all workers read at, renewed when it is too old or gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from cdc_migrator.model.alignment import Aligned, Aligner


class Points:
    """Shared by the workers of a pass.

    Args:
        max_age: seconds after which no further statement begins at a point.
    """

    def __init__(
        self, aligner: Aligner, max_age: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._aligner = aligner
        self._max_age = max_age
        self._clock = clock
        self._lock = threading.Lock()
        self._current: Aligned | None = None
        self._since = 0.0

    def current(self) -> Aligned:
        """A point that may be read at. Raises MigratorError where none is to be had."""
        with self._lock:
            if self._current is None or self._clock() - self._since > self._max_age:
                return self._renew()
            return self._current

    def after(self, stale: Aligned) -> Aligned:
        """A point later than this one. Raises as `current`."""
        with self._lock:
            if self._current is None or self._current is stale:
                return self._renew()
            return self._current

    def release(self) -> None:
        """Nobody reads any more."""
        with self._lock:
            self._current = None
            self._aligner.release()

    def _renew(self) -> Aligned:
        if self._current is not None:
            self._current = None
            self._aligner.release()
        self._since = self._clock()
        self._current = self._aligner.align()
        return self._current
