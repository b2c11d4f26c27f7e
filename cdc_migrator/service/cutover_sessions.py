"""The sessions of a cutover: opened before anybody is made to wait, and opened again when lost."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import psycopg

from cdc_migrator.control import locks, markers
from cdc_migrator.databases.postgres import same
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Failed, Refused

_LOOK_SECONDS = 0.1


class Sessions:
    """One session on the source, one on the target, and one that listens there.

    The target's holds the lock that makes this the only process that carries a cutover out.

    Args:
        called: what both sides are called in errors: on the way back the other way round.
    """

    def __init__(
        self,
        name: str,
        source_dsn: str,
        target_dsn: str,
        called: tuple[str, str] = ("source", "target"),
    ) -> None:
        self._sides = dict(zip(("source", "target"), called, strict=True))
        self._called = f"cdcm-{name}-cutover"
        self._dsn = {"source": source_dsn, "target": target_dsn}
        self.control = self._open("target")
        self.listener = self._open("target")
        self.source = self._open("source")
        with speaking(self._sides["target"], "listening for its applier"):
            markers.listen(self.listener)

    def __enter__(self) -> Sessions:
        return self

    def __exit__(self, *_: object) -> None:
        for conn in (self.source, self.listener, self.control):
            with suppress(psycopg.Error):
                conn.close()

    def _open(self, side: str) -> psycopg.Connection:
        return connect(self._dsn[side], application_name=self._called, side=self._sides[side])

    def alone(self) -> None:
        """Be the only one who carries a cutover out. Raises Refused: CDCM-CUTOVER-RUNNING."""
        if not self.try_alone(3.0):
            raise Refused(
                "CDCM-CUTOVER-RUNNING",
                "another process is carrying a cutover out",
                "Leave it to its work; `cdc-migrator cutover abort` stops and undoes it.",
            )

    def try_alone(self, patience: float) -> bool:
        """The same, for as long as that; whether it was had."""
        with speaking(self._sides["target"], "taking the cutover's lock"):
            return locks.try_lock(self.control, locks.Role.CUTOVER, patience)

    def entered(self) -> dict[str, Any]:
        """What tells the target's server from another one."""
        row = self.control.execute(
            "SELECT system_identifier::text, current_database() FROM pg_control_system()"
        ).fetchone()
        return {"system": row[0], "database": row[1]} if row else {}

    def end_others(self) -> None:
        """End what a dead process has left running: it might raise the fence behind our back."""
        with speaking(self._sides["source"], "looking where it is"):
            one = same.one_database(self.source, self.control)
        source = [self.source.info.backend_pid]
        target = [self.control.info.backend_pid, self.listener.info.backend_pid]
        ours = {"source": source, "target": target}
        if one:
            # Two servers may number sessions alike: there each spares its own alone.
            ours = dict.fromkeys(ours, source + target)
        for side, conn in (("source", self.source), ("target", self.control)):
            with speaking(self._sides[side], "ending the sessions of a former cutover"):
                conn.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                    "WHERE application_name = %s AND datname = current_database() "
                    "AND pid <> ALL (%s)",
                    (self._called, ours[side]),
                )

    def reconnect(self, side: str, seconds: float) -> None:
        """A new session in place of one that was lost; does nothing where it was not.

        Raises MigratorError where the server stays away for that long.
        """
        lost = self.source if side == "source" else self.control
        if not lost.closed and _answers(lost):
            return
        lost.close()
        until = time.monotonic() + seconds
        while True:
            try:
                found = self._open(side)
                break
            except Failed:
                if time.monotonic() > until:
                    raise
                time.sleep(_LOOK_SECONDS)
        if side == "source":
            self.source = found
        else:
            self.control = found
            self.alone()


def _answers(conn: psycopg.Connection) -> bool:
    try:
        conn.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True
