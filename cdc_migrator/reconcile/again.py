"""How often a table is tried that could not be read at a point."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

# A table that the application truncates twice a second is read at one of so many points.
_SECONDS = 60.0
_AT_LEAST = 5
_FIRST_PAUSE, _MOST_PAUSE = 0.05, 1.0


def attempts(
    wait: Callable[[float], object], clock: Callable[[], float] = time.monotonic
) -> Iterator[int]:
    """Numbers of attempts, with a growing pause before each but the first.

    It ends when a minute is over; there are five at least, for one alone may take longer.
    """
    end = clock() + _SECONDS
    pause = _FIRST_PAUSE
    for attempt in itertools.count():
        yield attempt
        if attempt + 1 >= _AT_LEAST and clock() >= end:
            return
        wait(pause)
        pause = min(2 * pause, _MOST_PAUSE)
