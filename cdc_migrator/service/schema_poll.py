"""Beside the pipeline: where no event trigger tells of changes of the schema, look for them.

What is found is told by a marker like any other. It lies somewhere behind the change: a detection,
not a position. Rewrites that leave a table as it was are not seen this way.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any
from uuid import uuid4

import psycopg
import structlog

from cdc_migrator.control import markers, shapes
from cdc_migrator.databases.postgres import ddl_trigger, describe
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import MigratorError, name_of
from cdc_migrator.model.described import Described
from cdc_migrator.model.logins import Role, login
from cdc_migrator.service.beside import Beside
from cdc_migrator.service.options import RunOptions

_EVERY_SECONDS = 5.0
_PRUNE_SECONDS = 600.0
_KEPT_DAYS = 7

_log = structlog.get_logger("cdc_migrator.service")


class SchemaPoll(Beside):
    """Looks until left. A context manager."""

    def __init__(self, options: RunOptions, every: float = _EVERY_SECONDS) -> None:
        super().__init__("schema poll")
        self._source_dsn = options.source_dsn
        self._target_dsn = options.target_dsn
        self._migration = options.migration
        self._every = every
        self._seen: dict[int, Described | None] = {}
        self._told = False
        self._prune_at = time.monotonic()

    def _run(self) -> None:
        source: psycopg.Connection | None = None
        while not self._stop.wait(self._every):
            try:
                if source is None:
                    source = self._connect(self._source_dsn(), "source")
                with speaking("source", "looking for changes of the schema"):
                    self._look(source)
            except (MigratorError, psycopg.Error) as error:
                told = name_of(error)
                _log.warning("schema-not-looked-at", code=told)
                if source is not None:
                    with suppress(psycopg.Error):
                        source.close()
                source = None
        if source is not None:
            with suppress(psycopg.Error):
                source.close()

    def _look(self, source: psycopg.Connection) -> None:
        if time.monotonic() >= self._prune_at:
            self._prune_at = time.monotonic() + _PRUNE_SECONDS
            markers.prune(source, self._migration, "ddl", _KEPT_DAYS)
        if ddl_trigger.up(source):
            self._seen = {}
            return
        if not self._told:
            _log.warning("schema-looked-at", every_seconds=self._every)
            self._told = True
        with self._connect(self._target_dsn(), "target") as target:
            noted = {one.oid: one for one in shapes.read(target).values()}
        now = describe.by_oid(source, list(noted))
        for oid, before in noted.items():
            after = now.get(oid)
            seen = self._seen.get(oid, before)
            if after is None and seen is not None:
                self._tell(source, {"event": "drop", "tag": "", "oid": oid})
            elif after is not None and (seen is None or not after.same(seen)):
                table = dict(after.document)
                self._tell(source, {"event": "found", "tag": "", "oid": oid, "table": table})
            self._seen[oid] = after

    def _tell(self, source: psycopg.Connection, details: dict[str, Any]) -> None:
        markers.tell(source, self._migration, "ddl", str(uuid4()), details)
        _log.warning("schema-change-found", oid=details["oid"], happened=details["event"])

    def _connect(self, dsn: str, side: str) -> psycopg.Connection:
        called = f"cdcm-{self._migration}-schema"
        return connect(login(dsn, Role.APPLY), application_name=called, side=side)
