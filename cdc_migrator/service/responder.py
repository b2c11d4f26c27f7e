"""Beside the pipeline: does what commands ask of the running service.

Asked for is a point at which both sides are equal (`align`). It is kept until the command says
that it is done with it, is gone, or has had it for too long: an old snapshot keeps both servers
from cleaning up. Or what the stream has kept back is to be settled.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog

from cdc_migrator.control import requests
from cdc_migrator.control.requests import Request
from cdc_migrator.databases.postgres.coded import coded
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Fenced, MigratorError
from cdc_migrator.model.logins import Role, login
from cdc_migrator.service.barrier import Barriers, Point, Repairing
from cdc_migrator.service.beside import Beside
from cdc_migrator.service.dead_letters import KIND, Settling
from cdc_migrator.service.writer import Writer

MAX_AGE = 600.0
_TURN_SECONDS = 0.5
_LOOK_SECONDS = 1.0
_REMEMBER_SECONDS = 10.0
_PAUSE_SECONDS = 1.0

_log = structlog.get_logger("cdc_migrator.service")


@dataclass(frozen=True, slots=True)
class _Given:
    point: Point
    until: float


class Responder(Beside):
    """Answers requests until left.

    Args:
        repairing: what is to be written at the point of a request with these details, if anything.
        settling: does what a request about dead letters says; the answer's document.
        max_age: seconds for which a point is kept.
    """

    def __init__(
        self,
        source_dsn: Callable[[], str],
        target_dsn: Callable[[], str],
        migration: str,
        writer: Writer,
        repairing: Callable[[dict[str, Any]], AbstractContextManager[Repairing | None]],
        settling: Settling,
        max_age: float = MAX_AGE,
    ) -> None:
        super().__init__("responder")
        self._target_dsn = target_dsn
        self._repairing = repairing
        self._settling = settling
        self._max_age = max_age
        self._barriers = Barriers(source_dsn, target_dsn, migration, writer, self._stop)
        self._given: dict[int, _Given] = {}

    def _run(self) -> None:
        # First of all: transactions that are open now are in the way of every point until they
        # end, and the fewer the better.
        self._remember_once()
        remember = threading.Thread(target=self._remember, name="remember", daemon=True)
        remember.start()
        try:
            while not self._stop.is_set():
                try:
                    self._answer_all()
                except (psycopg.Error, MigratorError) as error:
                    _log.warning("requests-not-read", reason=type(error).__name__)
                    self._stop.wait(_PAUSE_SECONDS)
        finally:
            for one in self._given.values():
                one.point.close()
            remember.join()

    def _remember(self) -> None:
        """Keep the list of applied transactions short, and know where it begins."""
        while not self._stop.wait(_REMEMBER_SECONDS):
            self._remember_once()

    def _remember_once(self) -> None:
        with suppress(psycopg.Error, MigratorError):
            self._barriers.remember()

    def _answer_all(self) -> None:
        with connect(
            login(self._target_dsn(), Role.APPLY),
            application_name="cdc-migrator requests",
            side="target",
        ) as conn:
            conn.execute(f"LISTEN {requests.ASKED}")
            requests.begin_anew(conn, _failure("the service was started anew"))
            looked = 0.0
            while not self._stop.is_set():
                while (request := requests.take(conn)) is not None:
                    if request.kind == KIND:
                        self._settle(conn, request)
                    else:
                        self._answer(conn, request)
                if self._given and time.monotonic() - looked > _LOOK_SECONDS:
                    self._clean_up(conn)
                    looked = time.monotonic()
                for _ in conn.notifies(timeout=_TURN_SECONDS, stop_after=1):
                    looked = 0.0

    def _answer(self, conn: psycopg.Connection, request: Request) -> None:
        try:
            with self._repairing(request.details) as repairing:
                point = self._barriers.reach(repairing)
        except Fenced:
            raise
        except MigratorError as error:
            _log.warning("not-aligned", code=error.code, reason=error.cause)
            requests.answer(conn, request.id, "failed", error.as_dict())
            return
        except psycopg.Error as error:
            told = coded(error, "source", "aligning both sides")
            requests.answer(conn, request.id, "failed", told.as_dict())
            return
        self._given[request.id] = _Given(point, time.monotonic() + self._max_age)
        _log.info(
            "aligned",
            seconds=round(point.seconds, 4),
            held_seconds=round(point.held_seconds, 4),
            retakes=point.retakes,
            still=point.still,
        )
        requests.answer(
            conn,
            request.id,
            "answered",
            {
                "source_snapshot": point.source_snapshot,
                "target_snapshot": point.target_snapshot,
                "sees": point.sees,
                "at": point.at.isoformat(),
                "max_age": self._max_age,
                "seconds": point.seconds,
                "held_seconds": point.held_seconds,
                "retakes": point.retakes,
                "still": point.still,
            },
        )

    def _settle(self, conn: psycopg.Connection, request: Request) -> None:
        try:
            done = self._settling(request.details)
        except Fenced:
            raise
        except MigratorError as error:
            requests.answer(conn, request.id, "failed", error.as_dict())
        except psycopg.Error as error:
            told = coded(error, "target", "settling what is kept back")
            requests.answer(conn, request.id, "failed", told.as_dict())
        else:
            _log.info("dead-letters-settled", **done)
            requests.answer(conn, request.id, "answered", done)

    def _clean_up(self, conn: psycopg.Connection) -> None:
        gone = requests.orphaned(conn, list(self._given))
        now = time.monotonic()
        for number, one in list(self._given.items()):
            if number in gone or now > one.until:
                one.point.close()
                del self._given[number]


def _failure(cause: str) -> dict[str, Any]:
    return {
        "code": "CDCM-ALIGN-STOPPED",
        "cause": cause,
        "remedy": "Run the same command again.",
    }
