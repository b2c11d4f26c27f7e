"""Ask both servers at the same time: neither has to wait for what the other one says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

Here = TypeVar("Here")
There = TypeVar("There")


def at_once(here: Callable[[], Here], there: Callable[[], There]) -> tuple[Here, There]:
    """What both return; `there` runs in a thread of its own. Raises what either raises."""
    with ThreadPoolExecutor(1, thread_name_prefix="reconcile-target") as other:
        later = other.submit(there)
        return here(), later.result()


@contextmanager
def meanwhile(there: AbstractContextManager[There]) -> Iterator[Future[There]]:
    """Enter a context in a thread of its own; it is left at the end, wherever it was got to."""
    with ThreadPoolExecutor(1, thread_name_prefix="reconcile-ahead") as other:
        entering = other.submit(there.__enter__)
        try:
            yield entering
        finally:
            if entering.exception() is None:
                there.__exit__(None, None, None)
