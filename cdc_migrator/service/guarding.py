"""Undo a cutover whose process is gone: nobody need be there for the source to open again.

The command, typed again, goes on as long as the budget lasts. So an attempt without a process is
left alone for that long and a little more, and is undone then, as `cutover abort` does. Once the
target is open there is nothing to undo; what is left then are hooks, which people look after.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psycopg
import structlog

from cdc_migrator.control import cutover, locks, schema
from cdc_migrator.cutover.machine import STALLED, State
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import MigratorError, name_of
from cdc_migrator.model.logins import Role, login

_LOOK_SECONDS = 1.0
_GRACE_SECONDS = 5.0
# Applications may be made to wait in these.
_WAITING = STALLED | {State.HOLDING, State.UNDOING}

_log = structlog.get_logger("cdc_migrator.service")


class Guardian:
    """Looks for such a cutover until told to stop.

    Args:
        budget: seconds that a cutover has from the fence to the opening.
        undo: undoes the attempt that is under way; raises MigratorError.
    """

    def __init__(
        self, target_dsn: Callable[[], str], budget: float, undo: Callable[[], None]
    ) -> None:
        self._target_dsn = target_dsn
        self._patience = budget + _GRACE_SECONDS
        self._undo = undo
        self._alone: tuple[int, float] | None = None

    def guard(self, ended: threading.Event) -> None:
        """Look again and again; returns when `ended` is set. Errors are told, and tried again."""
        while not ended.is_set():
            try:
                with connect(
                    login(self._target_dsn(), Role.MONITOR),
                    application_name="cdc-migrator guard",
                    side="target",
                ) as conn:
                    while not ended.wait(_LOOK_SECONDS):
                        if self._abandoned(conn):
                            _log.warning("cutover-abandoned", undoing_after=self._patience)
                            self._undo()
            except (psycopg.Error, MigratorError) as error:
                code = name_of(error)
                _log.warning("cutover-not-guarded", reason=code)
                ended.wait(_GRACE_SECONDS)

    def _abandoned(self, conn: psycopg.Connection) -> bool:
        """Whether an attempt that keeps applications waiting has had no process for too long."""
        attempt = cutover.unfinished(conn) if schema.has(conn, "cutover") else None
        if (
            attempt is None
            or attempt.opened_at is not None
            or attempt.state not in _WAITING
            or locks.taken(conn, locks.Role.CUTOVER)
        ):
            self._alone = None
            return False
        now = time.monotonic()
        if self._alone is None or self._alone[0] != attempt.attempt:
            self._alone = (attempt.attempt, now)
        return now - self._alone[1] > self._patience
