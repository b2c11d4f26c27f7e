"""Beside the stream: give the target what the source has got and the stream does without.

Indexes and constraints are made where they are missing; tables that shall move join the stream.
"""

from __future__ import annotations

import threading

import psycopg
import structlog

from cdc_migrator.errors import MigratorError, name_of
from cdc_migrator.model.changes import SchemaPolicy
from cdc_migrator.service.migrate import Migrate

_KEY_SECONDS = 2.0
_log = structlog.get_logger("cdc_migrator.service")


def finish_foreign_keys(steps: Migrate, ending: threading.Event) -> None:
    """Make those that have to wait for the stream, whenever it has got so far, until `ending`."""
    done: str | None = None
    while not ending.wait(_KEY_SECONDS):
        try:
            done = steps.foreign_keys(done)
        except (MigratorError, psycopg.Error) as error:
            reason = name_of(error)
            _log.warning("foreign-keys-wait", reason=reason)


class Completing:
    """Does so when asked, one time after the other, where the settings want it."""

    def __init__(self, steps: Migrate, policy: SchemaPolicy) -> None:
        self._steps = steps
        self._wanted = policy is SchemaPolicy.APPLY
        self._asked = threading.Event()

    def ask(self) -> None:
        """There may be something; returns at once."""
        if self._wanted:
            self._asked.set()

    def keep(self, ending: threading.Event, every: float = 2.0) -> None:
        """Do what there is to do until `ending`; nothing where it is not wanted."""
        while self._wanted and not ending.wait(every):
            try:
                if not self._steps.left_alone():
                    continue
                self._steps.join()
                if self._asked.is_set():
                    self._asked.clear()
                    self._steps.indexes()
            except (MigratorError, psycopg.Error) as error:
                reason = name_of(error)
                _log.warning("not-completed", reason=reason)
