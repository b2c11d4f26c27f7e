"""Ask both servers at the same time: neither has to wait for what the other one says."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Here = TypeVar("Here")
There = TypeVar("There")


def at_once(here: Callable[[], Here], there: Callable[[], There]) -> tuple[Here, There]:
    """What both return; `there` runs in a thread of its own. Raises what either raises."""
    with ThreadPoolExecutor(1, thread_name_prefix="reconcile-target") as other:
        later = other.submit(there)
        return here(), later.result()
