"""The fence of the side that is left: no row of these tables changes behind its marker, until it
is lifted. On the way there that is the source, on the way back the target. `guard` is the function
of its triggers: another than usual where the other side is in the same database.

Triggers are made beforehand and disabled. Then one transaction locks every table against writers,
which waits for those that are open, enables the triggers and writes the marker. Its locks go only
after its commit record is in the write-ahead log; so whoever wrote before has its commit in front
of the marker, and whoever comes after meets the trigger. A change of a fenced table behind the
marker can only mean that somebody took the fence off.

Locks are taken one after the other, each for a moment only, and all given back where one is not to
be had: locking all at once would deadlock with writers that use another order, and make everybody
wait behind the slowest. The table that was not to be had is the first of the next try.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from cdc_migrator.cutover.obstacles import GIVE_WAY, Kind, Obstacle, obstacles
from cdc_migrator.databases.postgres import fence
from cdc_migrator.databases.postgres.brief import briefly
from cdc_migrator.databases.postgres.coded import coded, speaking
from cdc_migrator.databases.postgres.fence import Guard, State
from cdc_migrator.errors import Failed, Refused
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.tables import TableName
from cdc_migrator.model.wording import few

# To make a trigger nobody need wait long; to lift the fence it is writers that wait for it.
_PREPARE_LOCK_MS = 200
_LIFT_LOCK_MS = 500
_LIFT_SECONDS = 60.0
_LOCKED_AT = "cdc_migrator.locked_at"
_HINTS = {
    Guard.OWN: "This database is being left for another one. Reconnect to where the application is "
    "switched to; if the switch is given up, writing is possible here again.",
    Guard.LEFT: "This table is being left for another one of this database. Write to where the "
    "application is switched to; if the switch is given up, writing is possible here again.",
}


@dataclass(frozen=True, slots=True)
class FenceOptions:
    """How long others may be made to wait.

    Attributes:
        budget: seconds from the first try to the last.
        first_lock, next_lock: milliseconds to wait for the first table of a try, and for each
            other. The first keeps nobody waiting but writers of that table. Below
            ``deadlock_timeout`` (1 s by default).
        grace: seconds for which those may be in the way whom nothing makes go (a VACUUM, a
            prepared transaction): most are gone in a moment.
        terminate: end the sessions that are in the way once the budget is used up, and try on for
            as long again.
    """

    budget: float = 10.0
    first_lock: int = 500
    next_lock: int = 15
    grace: float = 2.0
    terminate: bool = False


@dataclass(frozen=True, slots=True)
class Raised:
    """The fence is up.

    Attributes:
        marker: the token of its marker.
        tries: how often the locks were asked for.
        held_ms: from the first lock to the commit, by the source's clock as far as the marker and
            by ours for the commit: how long a writer was made to wait by the try that succeeded.
        terminated: sessions that were ended.
    """

    marker: str
    tries: int
    held_ms: float
    terminated: int = 0


def prepare(
    conn: psycopg.Connection,
    migration: str,
    tables: Sequence[TableName],
    digest: str,
    patience: float = 120.0,
    side: str = "source",
    guard: Guard = Guard.OWN,
) -> list[TableName]:
    """Make the function, and on each table a disabled trigger; what is there stays.

    Triggers of a side that was opened by its function are disabled first.

    Args:
        conn: an autocommit session on the side that is left, whose control schema exists.
        tables: as the migration has them; partitioned ones are fenced with all they consist of.
        digest: SHA-256, in hexadecimal, of the token with which sessions pass the fence.
        side: what that side is called in errors.

    Returns:
        All tables that will be fenced.

    Raises:
        Refused: CDCM-FENCE-OWNER. Failed: CDCM-FENCE-LOCKED.
    """
    body = fence.body(migration, digest, _HINTS[guard])
    with speaking(side, "preparing its fence"):
        found = fence.read(conn, tables, guard)
        lacking = [one for one in found if one.state in (State.NONE, State.OTHER)]
        if foreign := [one.table for one in found if not one.owned and one.state is not State.DOWN]:
            raise fence.not_owned(side, foreign, "writers")
        if not fence.defined(conn, body, guard):
            for one in found:
                # With the new body it would refuse writes before anybody has waited for writers.
                if one.state is State.UP:
                    _briefly(conn, side, [fence.disable(one.table)], [one.table], patience)
            _briefly(conn, side, [fence.define(body, guard)], tables, patience)
        for one in lacking:
            _briefly(conn, side, fence.ready(one, guard), [one.table], patience)
            reach("fence.prepared")
    return [one.table for one in found]


def prepared(conn: psycopg.Connection, tables: Sequence[TableName]) -> list[TableName]:
    """All tables that `prepare` has given a trigger, and that it would give one now."""
    return [one.table for one in fence.read(conn, tables)]


def raise_fence(
    conn: psycopg.Connection,
    migration: str,
    tables: Sequence[TableName],
    marker: str,
    options: FenceOptions | None = None,
    also: Sequence[sql.Composed] = (),
    side: str = "source",
    guard: Guard = Guard.OWN,
) -> Raised:
    """Stop every writer of these tables, and put the `fence` marker behind their last change.

    Args:
        conn: an autocommit session on the side that is left, called `side` in errors.
        tables: what `prepare` gave.
        marker: a token that no other marker has.
        also: statements for the transaction that raises the fence.

    Raises:
        Refused: CDCM-FENCE-OBSTACLE: somebody is in the way who does not go by itself.
        Failed: CDCM-FENCE-BUDGET: the tables were not to be had. CDCM-FENCE-CHANGED: there are
            tables that `prepare` has not seen. Nothing is fenced then.
    """
    options = options or FenceOptions()
    order = list(tables)
    began = time.monotonic()
    deadline = began + options.budget
    tries = terminated = 0
    while True:
        if lasting := _make_way(conn, order):
            if time.monotonic() > began + options.grace:
                raise Refused(
                    "CDCM-FENCE-OBSTACLE",
                    f"the fence cannot be raised now: {_told(lasting)}",
                    "; ".join(dict.fromkeys(one.remedy for one in lasting)) + "; then try again.",
                )
            time.sleep(0.02)
            continue
        tries += 1
        try:
            held = _try(conn, migration, order, marker, options, also, guard)
            return Raised(marker, tries, held, terminated)
        except psycopg.errors.LockNotAvailable as exc:
            order = _first(order, exc.diag.schema_name, exc.diag.table_name)
        except psycopg.errors.DeadlockDetected:
            random.shuffle(order)
        except psycopg.Error as exc:
            raise coded(exc, side, "raising its fence") from exc
        if time.monotonic() > deadline:
            in_way = obstacles(conn, order)
            if not options.terminate or time.monotonic() > began + 2 * options.budget:
                raise Failed(
                    "CDCM-FENCE-BUDGET",
                    f"the {side}'s tables were not free of writers for a moment within "
                    f"{time.monotonic() - began:.0f} s; in the way: {_told(in_way)}",
                    "Try when long transactions have ended, give it a longer budget, or allow it "
                    "to end the sessions that are in its way.",
                )
            terminated += _terminate(conn, in_way)
        time.sleep(random.uniform(0.001, 0.03))


def lower(
    conn: psycopg.Connection,
    migration: str,
    tables: Sequence[TableName],
    marker: str,
    side: str = "source",
    guard: Guard = Guard.OWN,
) -> None:
    """Let everybody write again, behind an `unfence` marker. The triggers stay, disabled.

    Raises Failed: CDCM-FENCE-LOCKED.
    """
    statements = [
        *(
            fence.disable(one.table)
            for one in fence.read(conn, tables, guard)
            if one.state is State.UP
        ),
        _marker(migration, "unfence", marker),
    ]
    with speaking(side, "lifting its fence"):
        _briefly(conn, side, statements, tables, _LIFT_SECONDS, _LIFT_LOCK_MS)


def holes(
    conn: psycopg.Connection,
    tables: Sequence[TableName],
    side: str = "source",
    guard: Guard = Guard.OWN,
) -> list[TableName]:
    """The tables, partitions that came since included, whose fence is not up; empty is proof."""
    with speaking(side, "looking at its fence"):
        found = fence.read(conn, tables, guard)
        refuses = fence.refuses(conn, guard)
    up = {one.table for one in found if one.state is State.UP and refuses}
    return sorted({*tables, *(one.table for one in found)} - up)


def _make_way(conn: psycopg.Connection, tables: Sequence[TableName]) -> list[Obstacle]:
    """Send autovacuum away, which PostgreSQL itself would do later than we wait; who stays."""
    in_way = obstacles(conn, tables)
    for one in in_way:
        if one.kind is Kind.AUTOVACUUM:
            # Who may not do this waits until autovacuum has done with the table.
            _signal(conn, "pg_cancel_backend", one)
    return [one for one in in_way if one.kind not in GIVE_WAY]


def _try(
    conn: psycopg.Connection,
    migration: str,
    order: Sequence[TableName],
    marker: str,
    options: FenceOptions,
    also: Sequence[sql.Composed],
    guard: Guard,
) -> float:
    with conn.transaction():
        conn.execute(_locking(order, options))
        known = {one.table: one.state for one in fence.read(conn, order, guard)}
        unready = [t for t in {*order, *known} if known.get(t) not in (State.DOWN, State.UP)]
        if unready or not fence.refuses(conn, guard):
            raise Failed(
                "CDCM-FENCE-CHANGED",
                f"{few(sorted(unready)) or 'its function'} came or changed since the fence was "
                "prepared",
                "Run the same command again: it prepares them, too.",
            )
        conn.execute(_enabling(order))
        for statement in (_marker(migration, "fence", marker), *also):
            conn.execute(statement)
        row = conn.execute(
            "SELECT extract(epoch FROM clock_timestamp() "
            "- current_setting(%s)::timestamptz)::float8 * 1000",
            (_LOCKED_AT,),
        ).fetchone()
        assert row is not None
        reach("fence.raising")
        committing = time.monotonic()
    return float(row[0]) + (time.monotonic() - committing) * 1000


_LOCK = """
DECLARE
    t text[];
    first boolean := true;
BEGIN
    PERFORM pg_catalog.set_config('lock_timeout', {first_ms}, true);
    FOREACH t SLICE 1 IN ARRAY {tables}::text[][] LOOP
        BEGIN
            EXECUTE pg_catalog.format(
                'LOCK TABLE ONLY %I.%I IN SHARE ROW EXCLUSIVE MODE', t[1], t[2]);
        EXCEPTION WHEN lock_not_available THEN
            RAISE EXCEPTION USING ERRCODE = '55P03', MESSAGE = 'not free', SCHEMA = t[1],
                TABLE = t[2];
        END;
        IF first THEN
            PERFORM pg_catalog.set_config(
                {locked_at}, pg_catalog.clock_timestamp()::text, true);
            PERFORM pg_catalog.set_config('lock_timeout', {next_ms}, true);
            first := false;
        END IF;
    END LOOP;
END
"""


def _locking(order: Sequence[TableName], options: FenceOptions) -> sql.Composed:
    """One round trip, whatever the number of tables."""
    body = sql.SQL(_LOCK).format(
        tables=[[table.schema, table.name] for table in order],
        first_ms=str(options.first_lock),
        next_ms=str(options.next_lock),
        locked_at=_LOCKED_AT,
    )
    return sql.SQL("DO {}").format(sql.Literal(body.as_string(None)))


def _enabling(order: Sequence[TableName]) -> sql.Composed:
    return sql.SQL("; ").join(fence.enable(table) for table in order)


def _marker(migration: str, kind: str, token: str) -> sql.Composed:
    return sql.SQL(
        "INSERT INTO cdc_migrator.marker (migration, kind, token) VALUES ({}, {}, {})"
    ).format(migration, kind, token)


def _first(order: Sequence[TableName], schema: str | None, name: str | None) -> list[TableName]:
    failing = [table for table in order if (table.schema, table.name) == (schema, name)]
    return [*failing, *(table for table in order if table not in failing)]


def _terminate(conn: psycopg.Connection, in_way: Sequence[Obstacle]) -> int:
    return sum(_signal(conn, "pg_terminate_backend", one) for one in in_way if one.pid is not None)


def _signal(conn: psycopg.Connection, function: str, one: Obstacle) -> bool:
    try:
        row = conn.execute(
            sql.SQL("SELECT {}(%s)").format(sql.Identifier(function)), (one.pid,)
        ).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return False
    return row == (True,)


def _briefly(
    conn: psycopg.Connection,
    side: str,
    statements: Sequence[sql.Composed],
    tables: Sequence[TableName],
    patience: float,
    lock_milliseconds: int = _PREPARE_LOCK_MS,
) -> None:
    if not briefly(conn, statements, lock_milliseconds, patience):
        raise fence.busy(side, tables, patience)


def _told(in_way: Sequence[Obstacle]) -> str:
    told = [
        f"{one.kind} of {one.name}{f' (pid {one.pid})' if one.pid else ''} on {few(one.tables)}"
        + (f", open for {one.seconds:.0f} s" if one.seconds is not None else "")
        for one in in_way
    ]
    return few(told, "; ") or "nobody any more"
