"""When the last applied transaction passed each place on its way, for the stages of the lag."""

from __future__ import annotations

import time
from collections.abc import Callable

from cdc_migrator.apply.batcher import Batch
from cdc_migrator.monitor import lag
from cdc_migrator.monitor.lag import Passage, Stages


class Passing:
    """Notes batches as they are applied; `clock` gives seconds since 1970 UTC."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._last: Passage | None = None

    def note(self, batch: Batch) -> None:
        """The batch was committed on the target just now."""
        for last in reversed(batch.transactions):
            if last.committed_at_us is not None and last.sent_ms is not None:
                self._last = Passage(last.committed_at_us / 1e6, last.sent_ms / 1e3, self._clock())
                return

    def stages(self, at_end: bool | None, source_ahead: float | None) -> Stages | None:
        """Where the lag lies now, see `lag.stages`; None before anything was applied."""
        if self._last is None:
            return None
        return lag.stages(self._last, self._clock(), bool(at_end), source_ahead)
