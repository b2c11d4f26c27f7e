"""PgBouncer: applications wait in it while the database that they use becomes another one.

`PAUSE` before the fence lets open transactions end and makes new ones wait; then the database's
line is changed in PgBouncer's file, `RELOAD` reads it, and `RESUME` lets everybody go on, on the
other side. Nobody is disconnected.

What was done is read from PgBouncer and from the file each time, never remembered; so each moment
can be repeated, by another process too. PgBouncer stays paused when its console is closed: a
process that is killed here is followed by one that undoes or finishes.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from cdc_migrator.config.hooks import Pgbouncer
from cdc_migrator.cutover.hooks import bouncer_file
from cdc_migrator.cutover.hooks.base import Context, HookFailed, Moment
from cdc_migrator.cutover.hooks.bouncer_file import Line, Unfit
from cdc_migrator.cutover.hooks.session import Session
from cdc_migrator.errors import Failed, Refused
from cdc_migrator.faultpoints import reach

_DEFAULTS = {"port": "5432"}
_RESUME_SECONDS = 5.0
# Where nobody asked for a pause it is for what takes a moment only.
_PAUSE_SECONDS = 1.0
# Seconds: for how long it is seen to that sessions open again, and how often it is tried.
_LOGIN_SECONDS = 0.5
_LOGIN_RETRY = 0.1


class PgbouncerHook:
    """See the module."""

    def __init__(self, configured: Pgbouncer, migration: str) -> None:
        self.name = configured.name or configured.kind
        self.retries = configured.retries
        self._configured = configured
        self._timeout = configured.timeout.total_seconds()
        self._called = f"cdcm-{migration}-hook"
        self._console = Session(self._connect)
        # Behind a link the file itself is replaced.
        self._file = configured.config.resolve()
        self._copy = self._file.with_name(f"{self._file.name}.before-{migration}")

    def open(self) -> None:
        """Have a session on the console."""
        self._console.open(self._timeout)

    def close(self) -> None:
        """Close it."""
        self._console.close()

    def run(self, moment: Moment, context: Context) -> str | None:
        """See `base.Hook`. Raises, of its own, Refused CDCM-HOOK-PGBOUNCER at `CHECK`."""
        deadline = time.monotonic() + self._timeout
        try:
            if moment is Moment.CHECK:
                return self._check(context, deadline)
            if moment is Moment.HOLD:
                return self._pause(deadline)
            if context.side == "target":
                return self._to_target(context, deadline)
            return self._to_source(context, deadline)
        except TimeoutError:
            raise HookFailed(f"PgBouncer did not answer within {self._timeout:g} s") from None
        except psycopg.Error as error:
            said = error.diag.message_primary or "the connection was lost"
            raise HookFailed(f"PgBouncer said: {said}") from None
        except OSError as error:
            raise HookFailed(f"{self._file} cannot be replaced ({error.strerror})") from None
        except Unfit as error:
            raise HookFailed(f"{self._file} {error}", again=False) from None

    # -- moments ---------------------------------------------------------------------------------

    def _check(self, context: Context, deadline: float) -> str:
        try:
            known = self._database(deadline)
            # Has no effect on a database that is enabled, and is for administrators only.
            self._command("ENABLE", deadline)
        except psycopg.Error as error:
            said = error.diag.message_primary or "the connection was lost"
            raise self._refused(
                f"PgBouncer's console said: {said}",
                "Name a user of its `admin_users` in the hook's `console`.",
            ) from None
        try:
            line, wanted = self._look(context)
            bouncer_file.try_to_replace(self._file)
        except Unfit as error:
            raise self._refused(
                f"{self._file} {error}",
                "Name the file that has the database's line in the hook's `config`, or give the "
                "whole line as `target_line`.",
            ) from None
        except OSError as error:
            raise self._refused(
                f"{self._file} cannot be replaced ({error.strerror})",
                "Run this command where PgBouncer's file is, as its owner, who may also write to "
                "its directory.",
            ) from None
        if not self._says(known, line.value):
            raise self._refused(
                f"PgBouncer does not have the database {self._configured.database!r} as it stands "
                f"in {self._file}",
                "Name the file that PgBouncer reads, and RELOAD it if that was changed.",
            )
        if line.value == wanted:
            if self._copy.exists():
                return "it has been switched"
            raise self._refused(
                f"the line in {self._file} is already that of the target",
                "Have it name the source until the cutover.",
            )
        if self._copy.exists() and self._before() != line.value:
            raise self._refused(
                f"{self._copy} is left of an earlier switch, and says otherwise than {self._file}",
                "See which of both is right for the source; then remove the copy.",
            )
        self._try_login(wanted)
        mode = known["pool_mode"] or self._settings(deadline)["pool_mode"]
        if mode == "session":
            return "warning: pool mode session: PAUSE waits until every client has disconnected"
        return f"pool mode {mode}"

    def _try_login(self, wanted: str) -> None:
        """Log in as PgBouncer will, where the line says as whom: clients would wait for nothing."""
        said = bouncer_file.pairs(wanted)
        if not {"user", "password"} <= set(said):
            return
        place = {name: said[name] for name in ("host", "port", "user", "password") if name in said}
        try:
            psycopg.connect(
                "",
                dbname=said.get("dbname", self._configured.database),
                **place,  # type: ignore[arg-type]
                connect_timeout=max(2, math.ceil(self._timeout)),
                application_name=self._called,
            ).close()
        except psycopg.OperationalError as error:
            raise self._refused(
                f"the target cannot be reached as PgBouncer would ({_reason(error)})",
                "Let the line's user and password in on the target as well, or give the whole "
                "line as `target_line`.",
            ) from None

    def _pause(self, deadline: float) -> str:
        try:
            if self._database(deadline)["paused"]:
                # Perhaps somebody killed was still waiting for it to be complete.
                self._command("RESUME", deadline)
            self._command("PAUSE", deadline)
        except TimeoutError:
            self._resume(time.monotonic() + _RESUME_SECONDS)
            raise HookFailed(
                f"PAUSE took longer than {self._timeout:g} s and was taken back: transactions are "
                "open for longer, or clients of a session pool are connected",
                again=False,  # everybody has waited for that long
            ) from None
        return "paused"

    def _to_target(self, context: Context, deadline: float) -> str:
        line, wanted = self._look(context)
        warning = ""
        if line.value != wanted:
            if not self._copy.exists():
                bouncer_file.replace(self._copy, self._file.read_bytes(), like=self._file)
                reach("hook.pgbouncer.copied")
            bouncer_file.replace(self._file, line.saying(wanted), like=self._file)
            reach("hook.pgbouncer.rewritten")
        elif not self._copy.exists():
            warning = "; warning: it was so before, and nobody knows what it was"
        self._reload(wanted, deadline)
        return f"the target, {self._place(wanted)}{warning}"

    def _to_source(self, context: Context, deadline: float) -> str:
        line, wanted = self._look(context)
        if not self._copy.exists():
            if line.value == wanted:
                raise HookFailed(
                    f"{self._file} names the target, and {self._copy.name}, which says what it "
                    "was before, is gone",
                    again=False,
                )
            self._resume(deadline)
            return f"the source, {self._place(line.value)}, as before"
        before = self._before()
        if line.value != before:
            bouncer_file.replace(self._file, line.saying(before), like=self._file)
            reach("hook.pgbouncer.restored")
        self._reload(before, deadline)
        reach("hook.pgbouncer.resumed")
        self._copy.unlink(missing_ok=True)
        return f"the source, {self._place(before)}"

    # -- the file --------------------------------------------------------------------------------

    def _look(self, context: Context) -> tuple[Line, str]:
        """The line as it is, and what it says for the target."""
        line = bouncer_file.find(self._file.read_bytes(), self._configured.database)
        if self._configured.target_line is not None:
            return line, self._configured.target_line
        place = {
            "host": context.target.get("host", ""),
            "port": context.target.get("port", _DEFAULTS["port"]),
            "dbname": context.target.get("dbname") or context.target.get("user", ""),
        }
        if not all(place.values()) or "," in place["host"] + place["port"]:
            raise Unfit("cannot be given the target's host, port and dbname: give `target_line`")
        return line, bouncer_file.pointing(line.value, place)

    def _before(self) -> str:
        return bouncer_file.find(self._copy.read_bytes(), self._configured.database).value

    @staticmethod
    def _place(value: str) -> str:
        """Where a line points; the rest of it may hold a password."""
        said = bouncer_file.pairs(value)
        return " ".join(f"{key}={said[key]}" for key in ("host", "port", "dbname") if key in said)

    # -- the console -----------------------------------------------------------------------------

    def _reload(self, value: str, deadline: float) -> None:
        """Have PgBouncer read the file, see that it did, and let everybody go on."""
        known = self._database(deadline)
        if not known["paused"] and not self._says(known, value):
            # Not RECONNECT behind RELOAD: it breaks off sessions as they are opened (see
            # `_resume`), and is not needed: all old ones are obsolete.
            with suppress(TimeoutError):
                self._command("PAUSE", min(deadline, time.monotonic() + _PAUSE_SECONDS))
        self._console.run("RELOAD", seconds=deadline - time.monotonic())
        reach("hook.pgbouncer.reloaded")
        if not self._says(self._database(deadline), value):
            # It reports what it cannot read in its log only.
            raise HookFailed(f"PgBouncer did not take {self._file} over; see its log")
        self._resume(deadline)

    def _resume(self, deadline: float) -> None:
        """Let everybody go on, without the wait that follows a session that could not be opened.

        PAUSE and RELOAD break off one that is just being opened, which PgBouncer takes for a
        server that is down: for `server_login_retry`, 15 seconds by default, it would not try
        again.
        """
        if not self._database(deadline)["paused"]:
            return
        retry = self._settings(deadline)["server_login_retry"]
        if float(retry) <= _LOGIN_RETRY:
            self._command("RESUME", deadline)
            return
        self._set_retry(str(_LOGIN_RETRY), deadline)
        try:
            self._command("RESUME", deadline)
            patience = min(deadline, time.monotonic() + _LOGIN_SECONDS)
            while self._waiting(deadline) and time.monotonic() < patience:
                time.sleep(0.005)
        finally:
            self._set_retry(retry, deadline)

    def _waiting(self, deadline: float) -> bool:
        """Whether somebody waits and no session is open yet."""
        return any(
            row["cl_waiting"] and not row["sv_active"] + row["sv_idle"] + row["sv_used"]
            for row in self._ask("SHOW POOLS", deadline)
            if row["database"] == self._configured.database
        )

    def _set_retry(self, seconds: str, deadline: float) -> None:
        statement = sql.SQL("SET server_login_retry = {}").format(sql.Literal(seconds))
        self._console.run(statement, seconds=deadline - time.monotonic())

    def _settings(self, deadline: float) -> dict[str, str]:
        return {row["key"]: str(row["value"]) for row in self._ask("SHOW CONFIG", deadline)}

    def _says(self, known: dict[str, Any], value: str) -> bool:
        """Whether PgBouncer has the database as this line says."""
        said = {**_DEFAULTS, "dbname": self._configured.database, **bouncer_file.pairs(value)}
        has = (known["host"] or "", str(known["port"]), known["database"])
        return has == (said.get("host", ""), said["port"], said["dbname"])

    def _database(self, deadline: float) -> dict[str, Any]:
        for row in self._ask("SHOW DATABASES", deadline):
            if row["name"] == self._configured.database:
                return row
        raise self._refused(
            f"PgBouncer has no database {self._configured.database!r}",
            "Name one that stands in its [databases]; a line for `*` alone cannot be switched.",
        )

    def _ask(self, statement: str, deadline: float) -> list[dict[str, Any]]:
        return self._console.run(statement, seconds=deadline - time.monotonic())

    def _command(self, verb: str, deadline: float) -> None:
        statement = sql.SQL(verb + " {}").format(sql.Identifier(self._configured.database))
        self._console.run(statement, seconds=deadline - time.monotonic())

    def _connect(self, seconds: float) -> psycopg.Connection[dict[str, Any]]:
        """A session of the console, which knows neither transactions nor settings."""
        console = self._configured.console
        try:
            return psycopg.connect(
                "",
                **{"dbname": "pgbouncer", **console.parameters()},  # type: ignore[arg-type]
                password=console.reveal_password(),
                # libpq takes whole seconds, and one as two.
                connect_timeout=max(2, math.ceil(seconds)),
                application_name=self._called,
                autocommit=True,
                prepare_threshold=None,
                row_factory=dict_row,
            )
        except psycopg.OperationalError as error:
            raise Failed(
                "CDCM-HOOK-CONSOLE",
                f"PgBouncer's console does not let us in ({_reason(error)})",
                "See that it runs and that the hook's `console` names host, port, user and "
                "password.",
            ) from None

    def _refused(self, cause: str, remedy: str) -> Refused:
        return Refused("CDCM-HOOK-PGBOUNCER", cause, remedy)


def _reason(error: psycopg.OperationalError) -> str:
    """The last words of libpq's message."""
    words = str(error).strip().rpartition("failed: ")[2].splitlines()
    return words[0] if words else "no answer"
