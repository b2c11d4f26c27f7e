"""Beside the pipeline: inspects now and then what takes longer to be looked at, and never disturbs.

What fails here is logged and tried again later; the stream does not notice, and the gates notice
that nobody has looked lately.
"""

from __future__ import annotations

import threading
import time

import psycopg
import structlog

from cdc_migrator.errors import MigratorError
from cdc_migrator.service.inspection import InspectOptions, inspect

# It keeps a session of either server busy for this share of the time, at most.
_SHARE = 0.1

_log = structlog.get_logger("cdc_migrator.service")


class Inspecting:
    """Inspects until left. A context manager.

    Args:
        every: seconds from one inspection to the next, at least.
    """

    def __init__(self, options: InspectOptions, every: float) -> None:
        self._options = options
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inspecting", daemon=True)

    def __enter__(self) -> Inspecting:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                inspect(self._options)
            except (psycopg.Error, MigratorError) as error:
                code = error.code if isinstance(error, MigratorError) else type(error).__name__
                _log.warning("not-inspected", code=code)
            took = time.monotonic() - began
            self._stop.wait(max(self._every, took / _SHARE))
