"""The row of `cdc_migrator.route` on both sides, for applications that ask there where to go.

It is changed when the target is open and the source refuses writes, or the other way round; so
whichever row an application reads, and in whichever order they change, it is never sent to a side
that is not open yet. What it can meet is a row that is still the old one: then it is refused over
there, and reads again.

The side that applications go to is told first. If that fails, nothing has changed, and both rows
agree; and if we are killed in between, whoever has come over stays: the row beside the data it
writes says so. In the opposite order both could be sent to where the other says they are not.

The side that applications leave may be gone: then its row stays as it was, and that is told.
"""

from __future__ import annotations

import math
import time
from typing import Any

import psycopg
from psycopg import sql

from cdc_migrator.config.hooks import Route
from cdc_migrator.cutover.hooks.base import Context, HookFailed, Moment, Side
from cdc_migrator.cutover.hooks.session import Session
from cdc_migrator.databases.postgres.coded import coded
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import MigratorError, Refused
from cdc_migrator.faultpoints import reach

_SIDES: tuple[Side, Side] = ("source", "target")
_TELL = (
    "INSERT INTO cdc_migrator.route AS r (migration, side) VALUES (%s, %s) "
    "ON CONFLICT (migration) DO UPDATE SET side = EXCLUDED.side, changed_at = clock_timestamp() "
    "WHERE r.side <> EXCLUDED.side"
)
# Written, so that a side that is read-only is found out now.
_PREPARE = (
    "INSERT INTO cdc_migrator.route AS r (migration, side) VALUES (%s, 'source') "
    "ON CONFLICT (migration) DO UPDATE SET side = r.side RETURNING side"
)
_THERE = "SELECT to_regclass('cdc_migrator.route') IS NOT NULL"
_ROLES = (
    "SELECT name, to_regrole(quote_ident(name)) IS NOT NULL AND "
    "has_schema_privilege(name, 'cdc_migrator', 'USAGE') AND "
    "has_table_privilege(name, 'cdc_migrator.route', 'SELECT') "
    "FROM unnest(%s::text[]) AS name"
)
_MISSING = "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regrole(quote_ident(name)) IS NULL"


class RouteHook:
    """See the module.

    Args:
        source_dsn, target_dsn: with passwords.
    """

    def __init__(self, configured: Route, migration: str, source_dsn: str, target_dsn: str) -> None:
        self.name = configured.name or configured.kind
        self.retries = configured.retries
        self._timeout = configured.timeout.total_seconds()
        self._share = self._timeout / 2  # either may be gone without a word
        self._readers = list(configured.readers)
        self._dsns: dict[Side, str] = {"source": source_dsn, "target": target_dsn}
        self._sessions = {side: self._session(side, migration) for side in _SIDES}

    def open(self) -> None:
        """Have a session on both sides."""
        for session in self._sessions.values():
            session.open(self._timeout)

    def close(self) -> None:
        """Close both."""
        for session in self._sessions.values():
            session.close()

    def run(self, moment: Moment, context: Context) -> str | None:
        """See `base.Hook`. Raises, of its own, Refused CDCM-HOOK-ROUTE."""
        if moment is Moment.CHECK:
            return self._check(context)
        if moment is Moment.HOLD:
            return None
        return self._tell(context)

    def _tell(self, context: Context) -> str:
        left: Side = "source" if context.side == "target" else "target"
        self._run(context.side, _TELL, (context.migration, context.side), self._share)
        reach("hook.route.told")
        try:
            self._run(left, _TELL, (context.migration, context.side), self._share)
        except (HookFailed, MigratorError) as error:
            return f"{context.side}, told on the {context.side} only: {error}"
        return f"{context.side}, told on both sides"

    def _check(self, context: Context) -> str:
        deadline = time.monotonic() + self._timeout
        told = {side: self._prepare(side, context.migration, deadline) for side in _SIDES}
        if told["source"] != told["target"]:
            return (
                f"warning: the source says {told['source']}, the target says {told['target']}; "
                "the next switch puts that right"
            )
        return f"both sides say {told['source']}"

    def _prepare(self, side: Side, migration: str, deadline: float) -> str:
        """Have the row there, and its readers; what it says."""

        def ask(statement: str | sql.Composed, parameters: object = None) -> list[tuple[Any, ...]]:
            return self._run(side, statement, parameters, deadline - time.monotonic())

        if not ask(_THERE)[0][0]:
            raise Refused(
                "CDCM-HOOK-ROUTE",
                f"the {side} has no table cdc_migrator.route",
                "Start `cdc-migrator run` once, of this release: it brings the control schemas "
                "forward.",
            )
        said = str(ask(_PREPARE, (migration,))[0][0])
        if self._readers:
            if missing := [str(name) for (name,) in ask(_MISSING, (self._readers,))]:
                raise Refused(
                    "CDCM-HOOK-ROUTE",
                    f"on the {side} there is no role {', '.join(missing)}, which is to read "
                    "cdc_migrator.route",
                    "CREATE ROLE it there, or correct `readers`.",
                )
            self._grant(side, deadline)
        return said

    def _grant(self, side: Side, deadline: float) -> None:
        left = deadline - time.monotonic()
        found = self._run(side, _ROLES, (self._readers,), left)
        lacking = [sql.Identifier(str(name)) for name, granted in found if not granted]
        if not lacking:
            return
        for what in ("USAGE ON SCHEMA cdc_migrator", "SELECT ON cdc_migrator.route"):
            grant = sql.SQL("GRANT {} TO {}").format(sql.SQL(what), sql.SQL(", ").join(lacking))
            self._run(side, grant, None, deadline - time.monotonic())

    def _run(
        self, side: Side, statement: str | sql.Composed, parameters: object, seconds: float
    ) -> list[tuple[Any, ...]]:
        try:
            return self._sessions[side].run(statement, parameters, seconds=seconds)
        except TimeoutError:
            raise HookFailed(f"the {side} did not answer in time") from None
        except psycopg.Error as error:
            raise coded(error, side, "telling applications where to go") from error

    def _session(self, side: Side, migration: str) -> Session[tuple[Any, ...]]:
        def open_it(seconds: float) -> psycopg.Connection:
            # The server itself gives up before we break the session off, so that nothing of a
            # try that failed happens behind our back.
            limit = f"{max(1, int(self._share * 900))}ms"
            return connect(
                # libpq takes whole seconds, and one as two.
                psycopg.conninfo.make_conninfo(
                    self._dsns[side], connect_timeout=max(2, math.ceil(seconds))
                ),
                application_name=f"cdcm-{migration}-hook",
                side=side,
                settings={"statement_timeout": limit, "lock_timeout": limit},
            )

        return Session(open_it)
