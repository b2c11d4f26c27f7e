"""Both sides at one commit point while neither changes: a snapshot on either, nothing to wait for.

Only behind the source's fence, once its marker is applied: every writer that came before the fence
has released its locks, so any later snapshot sees it, and nobody but the applier, which has nothing
left to apply, writes to the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

import psycopg

from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.exported import export
from cdc_migrator.errors import Refused
from cdc_migrator.model.alignment import Aligned, Rebuild, Repair
from cdc_migrator.model.logins import Role, login


class QuietAlignment:
    """One point for as long as it is open; its two sessions are there from the beginning."""

    def __init__(self, source_dsn: str, target_dsn: str, called: str) -> None:
        settings = {"transaction_timeout": "0"}
        self._source = connect(
            login(source_dsn, Role.VERIFY),
            application_name=called,
            side="source",
            settings=settings,
        )
        self._target = connect(
            login(target_dsn, Role.VERIFY),
            application_name=called,
            side="target",
            settings=settings,
        )
        self._point: Aligned | None = None

    def __enter__(self) -> QuietAlignment:
        return self

    def __exit__(self, *_: object) -> None:
        for conn in (self._source, self._target):
            with suppress(psycopg.Error):
                conn.close()

    def take(self) -> Aligned:
        """Take both snapshots, once; nothing may be written on either side meanwhile."""
        if self._point is None:
            with speaking("source", "taking a snapshot"):
                sees, source_name = export(self._source)
            with speaking("target", "taking a snapshot"):
                _, target_name = export(self._target)
            self._point = Aligned(source_name, target_name, sees, datetime.now(UTC))
        return self._point

    def align(self, repairs: Sequence[Repair] = (), rebuild: Rebuild | None = None) -> Aligned:
        """The point. Raises Refused: CDCM-CUTOVER-REPAIR: nothing is written here."""
        if repairs or rebuild:
            raise Refused(
                "CDCM-CUTOVER-REPAIR",
                "rows are not repaired while applications wait",
                "Let the cutover be undone, then run `cdc-migrator reconcile --repair`.",
            )
        return self.take()

    def release(self) -> None:
        """The point is kept: there is no second one like it."""
