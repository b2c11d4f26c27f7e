"""Named places at which a test stops this process; inert unless the environment arms one.

``CDC_MIGRATOR_TEST_FAULT=apply.copy.after:3:KILL`` sends this process SIGKILL when it reaches the
place the third time. Nothing but tests sets the variable; without it a place costs one call.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

VARIABLE = "CDC_MIGRATOR_TEST_FAULT"


def _arm(text: str) -> Callable[[str], None]:
    """What to do at each place; raises ValueError where the variable cannot be read."""
    wanted, times, name = text.split(":")
    left = int(times)
    number = signal.Signals[f"SIG{name}"]

    def reached(place: str) -> None:
        nonlocal left
        if place == wanted:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), number)

    return reached


def _inert(_: str) -> None:
    pass


reach: Callable[[str], None] = _arm(os.environ[VARIABLE]) if VARIABLE in os.environ else _inert
