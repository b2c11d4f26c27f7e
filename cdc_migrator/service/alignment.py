"""Ask the running service for a point at which both sides are equal."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import psycopg

from cdc_migrator.control import progress, requests
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Failed, MigratorError, Refused
from cdc_migrator.model.alignment import Aligned, Rebuild, Repair
from cdc_migrator.model.logins import Role, login
from cdc_migrator.service import asking
from cdc_migrator.service.repairing import to_details

_STALE_SECONDS = 15.0


class RequestedAlignment:
    """Points from the service that applies this target's stream; the last one is kept alive.

    Args:
        patience: seconds to wait for an answer.
        stopping: no answer is waited for any longer once it is set.
    """

    def __init__(
        self,
        target_dsn: str,
        patience: float = 120.0,
        stopping: threading.Event | None = None,
    ) -> None:
        self._target_dsn = target_dsn
        self._patience = patience
        self._stopping = stopping or threading.Event()
        self._conn: psycopg.Connection | None = None
        self._request: int | None = None
        self.answer: dict[str, Any] = {}

    def __enter__(self) -> RequestedAlignment:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the last point up and end the session."""
        with suppress(psycopg.Error, MigratorError):
            self.release()
        if self._conn is not None:
            with suppress(psycopg.Error):
                self._conn.close()
            self._conn = None

    def align(self, repairs: Sequence[Repair] = (), rebuild: Rebuild | None = None) -> Aligned:
        """A new point, in place of the one before, at which all that has been written.

        Raises:
            Refused: CDCM-ALIGN-NO-RUN: nobody applies the stream.
            Failed: what the service said, or CDCM-ALIGN-SILENT.
        """
        with speaking("target", "asking the service to align both sides"):
            conn = self._session()
            self.release()
            self._require_run(conn)
            number = self._request = requests.ask(conn, "align", to_details(repairs, rebuild))
            answer = self.answer = self._wait(conn, number)
        return Aligned(
            answer["source_snapshot"],
            answer["target_snapshot"],
            answer["sees"],
            datetime.fromisoformat(answer["at"]),
        )

    def release(self) -> None:
        """Let the service give the last point up."""
        if self._request is not None and self._conn is not None and not self._conn.closed:
            number, self._request = self._request, None
            requests.release(self._conn, number)

    def _session(self) -> psycopg.Connection:
        if self._conn is None or self._conn.closed:
            self._request = None
            self._conn = connect(
                login(self._target_dsn, Role.APPLY),
                application_name="cdc-migrator reconcile",
                side="target",
            )
            self._conn.execute(f"LISTEN {requests.ANSWERED}")
        return self._conn

    def _require_run(self, conn: psycopg.Connection) -> None:
        if not progress.alive(conn, _STALE_SECONDS):
            raise Refused(
                "CDCM-ALIGN-NO-RUN",
                "no service applies this migration's stream: without it nothing can show that "
                "both sides are at the same commit",
                "Start `cdc-migrator run`, then run the same command again.",
            )

    def _wait(self, conn: psycopg.Connection, number: int) -> dict[str, Any]:
        silent = Failed(
            "CDCM-ALIGN-SILENT",
            f"the running service did not align both sides within {self._patience:g} s",
            "See its log and `cdc-migrator status`, then run the same command again.",
        )

        def still_wanted() -> None:
            self._require_run(conn)
            if self._stopping.is_set():
                raise Failed(
                    "CDCM-ALIGN-STOPPED",
                    "the service is stopping",
                    "Start `cdc-migrator run` and run the same command again.",
                )

        return asking.answer(conn, number, self._patience, silent, still_wanted)
