"""Have the target follow a change of the schema: run what may be run, or tell it and wait.

What the tables are from there on is written down in one transaction with what was run, and with
the tables that have to be read again, so whoever is killed here, or takes over, finds all of it or
none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import structlog

from cdc_migrator.control import load, migration, proofs, shapes
from cdc_migrator.databases.postgres import describe
from cdc_migrator.databases.postgres.coded import describe as worded
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.side import sides
from cdc_migrator.errors import Failed, Refused, StreamHalted
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.changes import SchemaPolicy
from cdc_migrator.model.described import Described
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.tables import TableName
from cdc_migrator.monitor.sample import ServiceState
from cdc_migrator.service.alteration import Kind
from cdc_migrator.service.mapped_changes import borne
from cdc_migrator.service.options import RunOptions
from cdc_migrator.service.resuming import reread
from cdc_migrator.service.schema_step import Step, step
from cdc_migrator.service.schema_words import Place, finding, sends, statements, told_of

_LOOK_SECONDS = 0.5
_LOCK = "2s"

_log = structlog.get_logger("cdc_migrator.service")


class Following:
    """Has the target follow, one change after the other.

    Args:
        stop: nothing is waited for any longer once it is set.
        turn: says that the service lives, and in which state; raises what has ended it.
        active: whether what the stream brings is written, not only followed.
    """

    def __init__(
        self,
        options: RunOptions,
        stop: threading.Event,
        turn: Callable[[ServiceState], float],
        active: Callable[[], bool] = lambda: True,
    ) -> None:
        self._options = options
        self._stop = stop
        self._turn = turn
        self._active = active
        self._told: tuple[str, ...] = ()

    def follow(
        self, wanted: Sequence[Step], passed: Sequence[Step], others: Collection[str], at: Place
    ) -> bool:
        """Have the target follow, or wait until it has; False when stopped meanwhile."""
        failing: float | None = None
        while not self._stop.is_set():
            now = self._turn(
                ServiceState.WAITING_FOR_SCHEMA if self._told else ServiceState.STREAMING
            )
            try:
                wanted = self.borne(wanted, at)
                refused = self._try(wanted, passed, others, at)
                if refused is None:
                    self._clear()
                    return True
                self._tell(wanted, refused, at)
                failing = None
            except Failed as error:
                failing = failing or now
                if now - failing > self._options.retry_for:
                    raise
                _log.warning("schema-not-looked-at", code=error.code)
            self._stop.wait(_LOOK_SECONDS)
        return False

    def read_again(self, wanted: Sequence[Step], at: Place) -> bool:
        """Read again those of these tables that have to be, and follow what has become of them
        meanwhile; False when stopped meanwhile."""
        while again := [one for one in wanted if one.reload]:
            wanted = self._reread(again)
            reach("ddl.read")
            if wanted and not self.follow(wanted, (), (), at):
                return False
        return True

    def as_of_now(self, one: Step) -> Step:
        """A table that is read again becomes at once what it is on the source by now."""
        now = self.described([one.before.oid]).get(one.before.oid)
        if now is None or one.after is None or now.same(one.after):
            return one
        made = step(one.before, now, (), one.tokens)
        return replace(made, reload=True, later=one.later)

    def require_same_side(self, one: Step, at: Place) -> None:
        """What travels beside the events was made for the table as it was.

        Raises StreamHalted: CDCM-SCHEMA-SIDE, where the change concerns that.
        """
        if one.after is None:
            return
        before, after = (
            sides([described.table], self._options.migration).get(described.name)
            for described in (one.before, one.after)
        )
        if sends(before) != sends(after):
            raise StreamHalted(
                "CDCM-SCHEMA-SIDE",
                f"the source has changed {one.before.name} ({told_of([one])}), of which values "
                "travel beside the events: what sends them must be made anew",
                at.position,
                f"{statements([one], None)}Type `cdc-migrator migrate --new-capture` with --force "
                "then: the target's rows stay, and only what differs is written.",
            )

    def borne(self, wanted: Sequence[Step], at: Place) -> list[Step]:
        """See `mapped_changes.borne`."""
        with self._target() as conn:
            return borne(conn, wanted, at)

    def described(self, oids: Iterable[int]) -> dict[int, Described]:
        """What these tables of the source are by now."""
        called = f"cdcm-{self._options.migration}-schema"
        with (
            connect(
                login(self._options.source_dsn(), Role.VERIFY),
                application_name=called,
                side="source",
            ) as conn,
            speaking("source", "describing its tables"),
        ):
            return describe.by_oid(conn, list(oids))

    def _reread(self, again: Sequence[Step]) -> list[Step]:
        """Read these tables again; how those go on that have changed once more meanwhile."""
        failed: Refused | None = None
        try:
            reread(self._options.reread, [], self._turn)
        except Refused as error:
            if error.code != "CDCM-LOAD-COLUMNS":
                raise
            failed = error
        if failed is None:
            with self._target() as conn, speaking("target", "reading what its tables are"):
                there = {one.oid: one for one in shapes.read(conn).values()}
        else:
            there = self.described([one.before.oid for one in again])
        more = []
        for one in again:
            now = there.get(one.before.oid)
            if now is None or one.after is None or now.same(one.after):
                continue
            # What was read has the newest values already.
            more.append(replace(step(one.after, now, ()), reload=failed is not None))
        if failed is not None and not more:
            raise failed
        return more

    def _try(
        self, wanted: Sequence[Step], passed: Sequence[Step], others: Collection[str], at: Place
    ) -> str | None:
        """Write the change down, after what may be run was run; why not, where that is not so."""
        with self._target() as conn, speaking("target", "following a change of the schema"):
            target = self._there(conn, wanted)
            lacking = [(one, change) for one in wanted for change in one.lacking(target)]
            runs = self._options.ddl is SchemaPolicy.APPLY
            asked = [
                change
                for _, change in lacking
                if not (runs and (change.safe or change.kind is Kind.TABLE_DROPPED))
            ]
            if asked:
                return ""
            try:
                with conn.transaction():
                    if runs:
                        self._run(conn, wanted)
                    self._write_down(conn, wanted, passed, others, at)
                    reach("ddl.settling")
            except psycopg.Error as exc:
                if exc.sqlstate is None:
                    raise
                return worded(exc)
        return None

    def _run(self, conn: psycopg.Connection, wanted: Sequence[Step]) -> None:
        conn.execute(f"SET LOCAL lock_timeout = '{_LOCK}'".encode())
        done: set[str] = set()
        for one in wanted:
            for change in one.changes:
                leave = change.kind is Kind.TABLE_DROPPED and one.before.table.root is None
                if leave or not (change.safe or change.kind is Kind.TABLE_DROPPED):
                    continue
                # What was run for one change may be all that the next one needs.
                if one.met(change, self._there(conn, [one])):
                    continue
                for statement in change.statements:
                    if statement not in done:
                        _log.info("schema-statement", table=str(one.name), statement=statement)
                        conn.execute(statement.encode())
                        done.add(statement)

    def _write_down(
        self,
        conn: psycopg.Connection,
        wanted: Sequence[Step],
        passed: Sequence[Step],
        others: Collection[str],
        at: Place,
    ) -> None:
        where = at.position, at.commit_lsn
        for one in wanted:
            former = one.before.name
            shapes.settle(conn, one.name, *where, one.tokens, one.document(), former)
            if one.after is None:
                shapes.leave(conn, one.before.name)
                continue
            if one.before.name != one.after.name:
                shapes.rename(conn, one.before.name, one.after.name)
            shapes.note(conn, [one.after])
            if _key(one.before) != _key(one.after):
                proofs.forget(conn, one.after.name)
        again = {one.name for one in wanted if one.reload and one.after is not None}
        if again:
            known = load.read_tables(conn)
            load.again(conn, [one.source for one in known if one.relation in again])
        for one in passed:
            # The other direction's tables follow their side as they are; a table that was read
            # again has this already.
            if not self._active() and one.after is not None:
                if one.before.name != one.after.name:
                    shapes.rename(conn, one.before.name, one.after.name)
                shapes.note(conn, [one.after])
            shapes.settle(conn, one.name, *where, one.tokens, [], one.before.name)
        if others:
            nobody = TableName("", "")
            shapes.settle(conn, nobody, *where, others, [])

    def _tell(self, wanted: Sequence[Step], refused: str, at: Place) -> None:
        """Say what is waited for; once, and again where it has changed."""
        with self._target() as conn:
            target = self._there(conn, wanted)
            told = (statements(wanted, target), refused)
            if told == self._told:
                return
            waiting = [one for one in wanted if one.lacking(target)] or list(wanted)
            for one in waiting:
                shapes.tell(conn, one.before.name, at.position, at.commit_lsn, one.document())
            error = finding(waiting, told[0], refused, at)
            document = error.as_dict() | {
                "at": datetime.now(UTC).isoformat(),
                "position": at.position,
            }
            migration.update(conn, "schema-change-waits", last_error=document)
        self._told = told
        _log.warning("schema-changed", **document)

    def _clear(self) -> None:
        if self._told:
            self._told = ()
            with self._target() as conn:
                migration.update(conn, "schema-change-settled", last_error=None)

    def _there(
        self, conn: psycopg.Connection, wanted: Iterable[Step]
    ) -> dict[TableName, Described]:
        names = {name for one in wanted for name in (one.before.name, one.name)}
        with speaking("target", "looking at its tables"):
            return describe.by_name(conn, sorted(names))

    def _target(self) -> psycopg.Connection:
        # As the role that the tables belong to.
        called = f"cdcm-{self._options.migration}-schema"
        return connect(self._options.target_dsn(), application_name=called, side="target")


def _key(table: Described) -> list[tuple[str, str]]:
    """What chunks are cut by."""
    columns = [table.table.column(name) for name in table.table.key]
    return [(column.name, column.type_text) for column in columns]
