"""Make what acts on rows in the moment in which the target is opened, and prove it afterwards.

That is for a target whose role may not hold foreign keys and triggers off (`control.deferring`).
They are made in the very transaction that opens it, so no row is written there without them, and
tried before anybody is made to wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc_migrator.backfill.diff.deferred import LeftOut, left_out
from cdc_migrator.control import deferring
from cdc_migrator.databases.postgres.brief import briefly
from cdc_migrator.databases.postgres.coded import coded, describe, speaking
from cdc_migrator.errors import Failed, MigratorError, Refused
from cdc_migrator.model.tables import TableName
from cdc_migrator.service.cutover_sessions import Sessions

_TRY_LOCK_MS = 300
_TRIES = 20
_PAUSE_SECONDS = 0.2
# An autovacuum that is in the way is ended by PostgreSQL after its deadlock_timeout.
_LOCK_MS = 2500
_PROVE_PATIENCE = 60.0


class _Undone(Exception):
    """All could be made."""


class Opening:
    """What waits for one cutover; does nothing on a target where nothing does.

    Args:
        tables: the migration's that are on the target what they are on the source.
    """

    def __init__(self, sessions: Sessions, tables: Callable[[], Sequence[TableName]]) -> None:
        self._sessions = sessions
        self._tables = tables
        self._known: list[LeftOut] | None = None

    def prepare(self, tell: Callable[[str], None]) -> dict[str, Any]:
        """Look what there is to be made, and try it; what is to be told of it.

        Raises Refused: CDCM-CUTOVER-KEYS: some of it cannot be made. Failed: CDCM-DB-LOCKED.
        """
        found = self._look()
        if not found:
            return {}
        tell(f"{len(found)} foreign keys and triggers, tried")
        began = time.monotonic()
        self._try(found)
        return {
            "deferred": len(found),
            "deferred_ms": round((time.monotonic() - began) * 1000, 3),
        }

    def make(self) -> None:
        """Make all, in the caller's transaction on the target. Raises psycopg.Error."""
        control = self._sessions.control
        found = self._look()
        if found:
            control.execute(f"SET LOCAL lock_timeout = {_LOCK_MS:d}")
            for statement in _statements(found):
                control.execute(statement.encode())

    def prove(self, tell: Callable[[str], None]) -> dict[str, Any]:
        """Have the target prove its foreign keys, while everybody writes; what to tell of it.

        What stands against it is told, and undoes nothing: `cdc-migrator schema diff` shows it.
        """
        control = self._sessions.control
        try:
            self._known = None
            found = [one for one in self._look() if one.prove]
            for one in found:
                tell(f"proving the {one.what}")
                for statement in one.prove:
                    self._prove(control, statement)
        except (MigratorError, psycopg.Error) as error:
            known = (
                error
                if isinstance(error, MigratorError)
                else coded(error, "target", "proving its foreign keys")
            )
            return {"keys_error": known.as_dict()}
        return {"keys_proven": len(found)} if found else {}

    def _prove(self, control: psycopg.Connection, statement: str) -> None:
        made = sql.SQL(statement)
        if not briefly(control, [sql.Composed([made])], _LOCK_MS, _PROVE_PATIENCE):
            raise Failed(
                "CDCM-DB-LOCKED",
                "a lock on the target was not to be had while proving its foreign keys",
                "`cdc-migrator schema diff --sql` has the statements that are left.",
            )

    def _look(self) -> list[LeftOut]:
        if self._known is None:
            with speaking("target", "reading what waits until it is opened"):
                waits = deferring.defers(self._sessions.control)
            self._known = (
                left_out(self._sessions.source, self._sessions.control, self._tables())
                if waits
                else []
            )
        return self._known

    def _try(self, found: Sequence[LeftOut]) -> None:
        """Make all and take it back. Locks are asked for as briefly as the fence does."""
        control = self._sessions.control
        for left in reversed(range(_TRIES)):
            at = ""
            try:
                with control.transaction():
                    control.execute(f"SET LOCAL lock_timeout = {_TRY_LOCK_MS:d}")
                    for one in found:
                        at = one.what
                        for statement in one.make:
                            control.execute(statement.encode())
                    raise _Undone
            except _Undone:
                return
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
                if not left:
                    raise coded(error, "target", "trying its foreign keys") from error
                time.sleep(_PAUSE_SECONDS)
            except psycopg.Error as error:
                raise Refused(
                    "CDCM-CUTOVER-KEYS",
                    f"the target cannot be given the {at}, which waits until it is opened: "
                    f"{describe(error)}",
                    "`cdc-migrator schema diff` shows in what the tables differ. Mend that, or "
                    "leave it out on both sides; then run the same command again.",
                ) from error


def _statements(found: Sequence[LeftOut]) -> list[str]:
    return [statement for one in found for statement in one.make]
