"""Beside the service: one more that applies the way back, as soon as there is one.

It has sessions, reader and applier of its own; what ends it is logged, and it is begun again. The
way there does not notice.
"""

from __future__ import annotations

import threading

import psycopg
import structlog

from cdc_migrator.control import migration, schema
from cdc_migrator.control.migration import Phase
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import MigratorError, Refused
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.naming import way_back_of
from cdc_migrator.service.options import RunOptions
from cdc_migrator.service.runner import Service

_LOOK_SECONDS = 1.0
_AGAIN_SECONDS = 5.0
# What was refused is not better soon.
_REFUSED_SECONDS = 30.0
_STOP_SECONDS = 30.0

_log = structlog.get_logger("cdc_migrator.way_back")


class Hosting:
    """Applies the way back until left. A context manager.

    Args:
        options: of the way back.
    """

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._stop = threading.Event()
        self._service: Service | None = None
        self._thread = threading.Thread(target=self._run, name="way back", daemon=True)

    def __enter__(self) -> Hosting:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._service is not None:
            self._service.stop()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        pause = _LOOK_SECONDS
        while not self._stop.wait(pause):
            pause = _LOOK_SECONDS
            try:
                if self._is_there():
                    _log.info("way-back-begins")
                    self._service = Service(self._options)
                    self._service.run()
            except (MigratorError, psycopg.Error) as error:
                told = error.as_dict() if isinstance(error, MigratorError) else {"code": "-"}
                _log.warning("way-back-not-applied", **told)
                pause = _REFUSED_SECONDS if isinstance(error, Refused) else _AGAIN_SECONDS

    def _is_there(self) -> bool:
        called = f"cdcm-{self._options.migration}-look"
        dsn = login(self._options.target_dsn(), Role.MONITOR)
        with connect(dsn, application_name=called, side="source") as conn:
            known = migration.read(conn) if schema.exists(conn, "target") else None
            if known is not None and way_back_of(known.name) == self._options.migration:
                return False  # source and target are one database
            there = migration.find(conn, self._options.migration)
        return there is not None and there.phase.reached(Phase.STREAM)
