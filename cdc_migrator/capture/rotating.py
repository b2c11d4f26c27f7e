"""Keeps the worker's files as new as ours: a password that was changed reaches the connector.

The worker reads its files when a connector starts. So whoever runs for long looks at what they are
made of, and writes them anew when that has changed and the database accepts it. A connector that
failed meanwhile, because it came back with the old password, is started again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from cdc_migrator.capture import access, secrets
from cdc_migrator.capture.connect_rest import ConnectClient
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import MigratorError
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.naming import Names
from cdc_migrator.model.outside import Workers

EVERY_SECONDS = 10.0
# For so many turns after a change a failed connector is taken for one that met the old password.
_TURNS = 30

_log = structlog.get_logger("cdc_migrator.capture")


@dataclass
class Rotating:
    """Of one stream.

    Args:
        dsn: gives the complete connection string of the side that is captured.
        directory, seen_by_worker, mode: of the files; as `CaptureOptions` has them.
        host, port: the server as the worker reaches it; None: as we do.
    """

    names: Names
    dsn: Callable[[], str]
    workers: Workers
    directory: Path
    seen_by_worker: Path
    mode: int
    host: str | None = None
    port: int | None = None
    _seen: int | None = field(default=None, repr=False)
    _turns: int = 0

    def keep(self, ended: threading.Event) -> None:
        """Look every `EVERY_SECONDS` until `ended`; what does not work is logged."""
        while not ended.wait(EVERY_SECONDS):
            try:
                if changed := self.look():
                    _log.info("connector-secrets-written", files=changed)
                    self._turns = _TURNS
                if self._turns:
                    self._turns -= 1
                    self._start_failed()
            except MigratorError as error:
                _log.warning("connector-secrets-not-written", **error.as_dict())

    def look(self) -> list[str]:
        """The files that were written anew, by name.

        Raises MigratorError: the database does not accept what is new, or a file cannot be used.
        """
        there = {path.name for path in secrets.of_migration(self.directory, self.names.migration)}
        if not there:
            return []  # nothing is captured yet, or without any of this
        dsn = login(self.dsn(), Role.CAPTURE)
        seen = hash((dsn, *_ages(dsn)))
        if seen == self._seen:
            return []
        called = f"cdcm-{self.names.migration}-secrets"
        with connect(dsn, application_name=called, side="source") as conn:
            way_in = access.of(conn, self.names, self.seen_by_worker, self.host, self.port)
        changed = secrets.write(self.directory, way_in.files, self.mode)
        self._seen = seen
        return changed

    def _start_failed(self) -> None:
        with ConnectClient(self.workers, patience=5.0) as client:
            name = client.called(self.names)
            status = client.status(name)
            if status is not None and status.failed:
                client.restart_failed(name)


def _ages(dsn: str) -> list[tuple[str, float]]:
    """The files that a session is made of, each with when it was changed."""
    from psycopg.conninfo import conninfo_to_dict

    given = conninfo_to_dict(dsn)
    home = Path.home()
    named = [given[key] for key in ("sslrootcert", "sslcert", "sslkey", "passfile") if key in given]
    usual = ("root.crt", "postgresql.crt", "postgresql.key")
    places = [
        *map(str, named),
        os.environ.get("PGPASSFILE", str(home / ".pgpass")),
        os.environ.get("PGSERVICEFILE", str(home / ".pg_service.conf")),
        *(str(home / ".postgresql" / one) for one in usual),
    ]
    return [(place, Path(place).stat().st_mtime) for place in places if Path(place).exists()]
