"""A switchover with PostgreSQL's logical replication, as a careful operator would script it.

Publication, subscription with the first copy, the target fenced. Then, under the writers: the same
fence on the source as the cutover's, wait until the subscriber has replayed past it, set the
sequences, disable the subscription, open the target, change the routing row on both sides with the
cutover's own hook. Every session is open beforehand. It compares nothing and writes nothing down:
killed half-way, somebody has to find out by hand where it stood.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from cdc_migrator.config.hooks import Route
from cdc_migrator.control import schema
from cdc_migrator.cutover import fence
from cdc_migrator.cutover.hooks.base import Context, Moment
from cdc_migrator.cutover.hooks.route import RouteHook
from cdc_migrator.databases.postgres import fence as triggers
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.tables import TableName

_POLL_SECONDS = 0.001
_SYNC_SECONDS = 60.0
_UNSYNCED = (
    "SELECT count(*) FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid "
    "WHERE s.subname = %s AND r.srsubstate <> 'r'"
)
# The fence's transaction is published, too, so its marker is there as soon as it is replayed.
# `replay_lsn` would say so when the subscriber's next report comes, which is later.
_REPLAYED = "SELECT EXISTS (SELECT FROM cdc_migrator.marker WHERE token = %s)"
_SEQUENCES = (
    "SELECT schemaname, sequencename, coalesce(last_value, start_value), increment_by "
    "FROM pg_sequences WHERE schemaname = 'app'"
)
_MARGIN = 1000


@dataclass(frozen=True, slots=True)
class Switched:
    """Milliseconds of each step, and from the source's fence to the target being open and told."""

    steps: dict[str, float]
    stall_ms: float
    switched_ms: float


class Switchover:
    """A subscription between two databases, caught up; the target is fenced."""

    def __init__(self, name: str, source_dsn: str, target_dsn: str, tables: list[str]) -> None:
        self._name = name
        self._tables = [TableName("app", one) for one in tables]
        self._source = connect(source_dsn, application_name=name, side="source")
        self._target = connect(target_dsn, application_name=name, side="target")
        self._hook = RouteHook(Route(kind="route"), name, source_dsn, target_dsn)
        both = (conninfo_to_dict(dsn) for dsn in (source_dsn, target_dsn))
        self._context = Context(name, 1, "target", *both)
        self._source_dsn = source_dsn

    def close(self) -> None:
        """Remove the subscription, its slot with it, and close everything."""
        with ExitStack() as closing:
            for one in (self._source, self._target, self._hook):
                closing.callback(one.close)
            self._target.execute(self._on_subscription("DROP SUBSCRIPTION IF EXISTS {}"))

    def prepare(self) -> None:
        """Copy, catch up, and prepare both fences; the target's is raised."""
        for conn in (self._source, self._target):
            schema.ensure(conn, "source")  # the small one: marker and routing row
        tables = sql.SQL(", ").join(
            sql.Identifier(one.schema, one.name)
            for one in (*self._tables, TableName("cdc_migrator", "marker"))
        )
        name = sql.Identifier(self._name)
        self._source.execute(sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(name, tables))
        self._target.execute(
            sql.SQL("CREATE SUBSCRIPTION {} CONNECTION {} PUBLICATION {}").format(
                name, self._source_dsn, name
            )
        )
        self._wait_for(self._target, _UNSYNCED, self._name, 0, _SYNC_SECONDS, 0.05)
        token = sha256(secrets.token_bytes(32)).hexdigest()
        fence.prepare(self._source, self._name, self._tables, token)
        # Subscribers pass statement triggers, but for the copy and TRUNCATE.
        self._target.execute(triggers.define(triggers.body(self._name, token, "not open yet")))
        for one in triggers.read(self._target, self._tables):
            with self._target.transaction():
                for statement in (*triggers.ready(one), triggers.enable(one.table)):
                    self._target.execute(statement)
        self._hook.open()
        self._hook.run(Moment.CHECK, self._context)

    def switch(self) -> Switched:
        """Fence, drain, sequences, disable, open, tell; raises where a step does not come about."""
        steps: dict[str, float] = {}

        @contextmanager
        def step(name: str) -> Iterator[None]:
            began = time.monotonic()
            yield
            steps[name] = round((time.monotonic() - began) * 1000, 2)

        marker = secrets.token_hex(16)
        with step("fencing"):
            raised = fence.raise_fence(self._source, self._name, self._tables, marker)
        fenced_at = time.monotonic() - raised.held_ms / 1000
        with step("draining"):
            self._wait_for(self._target, _REPLAYED, marker, True, 10.0, _POLL_SECONDS)
        with step("sequences"):
            self._set_sequences()
        with step("disabling"):
            self._target.execute(self._on_subscription("ALTER SUBSCRIPTION {} DISABLE"))
        with step("opening"):
            self._target.execute(triggers.define(triggers.pass_all(self._name)))
        opened_at = time.monotonic()
        with step("switching"):
            self._hook.run(Moment.SWITCH, self._context)
        told_at = time.monotonic()
        return Switched(
            {"held": round(raised.held_ms, 2), **steps},
            round((opened_at - fenced_at) * 1000, 2),
            round((told_at - fenced_at) * 1000, 2),
        )

    def _set_sequences(self) -> None:
        # No sequence is used yet on the target: they need not be looked at there.
        for schema_, name, value, by in self._source.execute(_SEQUENCES).fetchall():
            self._target.execute(
                "SELECT setval(format('%%I.%%I', %s::text, %s::text)::regclass, %s)",
                (schema_, name, value + _MARGIN * by),
            )

    def _on_subscription(self, statement: str) -> sql.Composed:
        return sql.SQL(statement).format(sql.Identifier(self._name))  # type: ignore[arg-type]

    def _wait_for(
        self,
        conn: psycopg.Connection,
        query: str,
        parameter: str,
        wanted: Any,
        seconds: float,
        every: float,
    ) -> None:
        until = time.monotonic() + seconds
        while conn.execute(query.encode(), (parameter,)).fetchone() != (wanted,):
            assert time.monotonic() < until, f"not within {seconds:g} s: {query}"
            time.sleep(every)
