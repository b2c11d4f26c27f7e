"""Beside the pipeline: inspects now and then what takes longer to be looked at, and never disturbs.

What fails here is logged and tried again later; the stream does not notice, and the gates notice
that nobody has looked lately.
"""

from __future__ import annotations

import time

import psycopg
import structlog

from cdc_migrator.errors import MigratorError, name_of
from cdc_migrator.service.beside import Beside
from cdc_migrator.service.inspection import InspectOptions, inspect

# It keeps a session of either server busy for this share of the time, at most.
_SHARE = 0.1

_log = structlog.get_logger("cdc_migrator.service")


class Inspecting(Beside):
    """Inspects until left. A context manager.

    Args:
        every: seconds from one inspection to the next, at least.
    """

    def __init__(self, options: InspectOptions, every: float) -> None:
        super().__init__("inspecting")
        self._options = options
        self._every = every

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                inspect(self._options)
            except (psycopg.Error, MigratorError) as error:
                code = name_of(error)
                _log.warning("not-inspected", code=code)
            took = time.monotonic() - began
            self._stop.wait(max(self._every, took / _SHARE))
