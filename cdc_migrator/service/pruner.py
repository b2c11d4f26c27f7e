"""Keep the side tables on the source small, and see that their triggers work.

Their rows matter only while they are written: the stream has them from the source's log. So they
may go at any time; emptying the table costs the least, but must never keep a writer waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import psycopg
import structlog
from psycopg import sql

from cdc_migrator.capture import sides
from cdc_migrator.databases.postgres import names
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import MigratorError, Refused
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.tables import TableName
from cdc_migrator.service.beside import Beside

_EVERY_SECONDS = 30.0
# A table whose writers never leave a gap is emptied row by row, once it is worth it.
_LARGE_BYTES = 64 << 20

_log = structlog.get_logger("cdc_migrator.service")


class Pruner(Beside):
    """Empties side tables now and then, until left.

    Args:
        on_lost: told when a trigger was switched off: the stream lacks something from then on.
    """

    def __init__(
        self,
        source_dsn: Callable[[], str],
        migration: str,
        on_lost: Callable[[MigratorError], None],
        every: float = _EVERY_SECONDS,
    ) -> None:
        super().__init__("pruner")
        self._source_dsn = source_dsn
        self._migration = migration
        self._on_lost = on_lost
        self._every = every

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with connect(
                    login(self._source_dsn(), Role.APPLY),
                    application_name="cdc-migrator prune",
                    side="source",
                    settings={"lock_timeout": "10ms"},
                ) as conn:
                    for table in sides.names(conn, self._migration):
                        prune(conn, table)
                    off = sides.switched_off(conn, self._migration)
                if off:
                    self._on_lost(_switched_off(off))
                    return
            except (psycopg.Error, MigratorError) as error:
                _log.warning("side-tables-not-pruned", reason=type(error).__name__)
            self._stop.wait(self._every)


def _switched_off(tables: Sequence[TableName]) -> Refused:
    return Refused(
        "CDCM-SIDE-DISABLED",
        "the trigger that sends what the connector's events lack was switched off or removed on "
        + ", ".join(map(str, tables)),
        "What was written meanwhile may be missing. `cdc-migrator abort`, then `cdc-migrator "
        "migrate` starts over.",
    )


def prune(conn: psycopg.Connection, table: TableName) -> None:
    """Empty a side table if that holds nobody up; where it has grown large, in any case."""
    name = names.table(table)
    size = conn.execute(sql.SQL("SELECT pg_relation_size({}::regclass)").format(name.as_string()))
    (bytes_,) = size.fetchone() or (0,)
    if not bytes_:
        return
    with suppress(psycopg.errors.LockNotAvailable):
        conn.execute(sql.SQL("TRUNCATE {}").format(name))
        return
    if bytes_ > _LARGE_BYTES:
        conn.execute(sql.SQL("DELETE FROM {}").format(name))
