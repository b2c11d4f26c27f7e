"""The snapshot holder: a process of its own that makes the slot and keeps its snapshot alive.

`python -m cdc_migrator.capture.holder` reads its request, with the connection strings, from
standard input: nothing secret is in its arguments or its environment. It answers with one line
of JSON on standard output and then belongs to nobody: it outlives the command that started it,
and ends when the target's migration row no longer names its snapshot, on SIGTERM, or when its
session on the source is lost.

What must stay open is one ordinary session: it imports the snapshot that the slot's creation
exports, inside a transaction that it never ends, and exports it again. The replication
connection is closed then, and frees its place among the source's senders. No table is locked:
a waiting TRUNCATE would make everybody else wait behind it, and could even keep open the very
transaction that the slot's creation waits for. Loaders compare each table's file instead.

At most one holder makes a slot at a time (a lock on the target). A slot that is there while the
target does not know its consistent point was made by a holder that died before it could say so;
nothing has read from it, so it is dropped and made anew.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import msgspec
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cdc_migrator.capture import slot as slots
from cdc_migrator.control import journal, locks, migration, schema
from cdc_migrator.databases.postgres.catalog import server_facts
from cdc_migrator.databases.postgres.coded import coded, describe
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Failed, MigratorError, Refused
from cdc_migrator.model.naming import Names


@dataclass(frozen=True, slots=True)
class Request:
    """What the holder is to do.

    Attributes:
        source_dsn: of who reads the source's rows. capture_dsn: of who makes its slot; empty: the
            same.
        patience: how many seconds the slot's creation may wait for the source's open transactions.
    """

    source_dsn: str
    target_dsn: str
    migration: str
    generation: int
    patience: float
    capture_dsn: str = ""

    @property
    def names(self) -> Names:
        return Names(self.migration, self.generation)

    @property
    def slot_dsn(self) -> str:
        return self.capture_dsn or self.source_dsn


@dataclass(frozen=True, slots=True)
class Answer:
    """The holder's one line: it holds a snapshot, or why it does not."""

    pid: int
    error: dict[str, Any] | None = None


def application_name(name: str) -> str:
    """How the holder's sessions are called on both sides."""
    return f"cdcm-{name}-holder"


def main() -> int:
    """Read the request, hold the snapshot until told to end; the process's exit code."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        holding = make_slot(request)
    except MigratorError as exc:
        _log(f"{exc.code}: {exc.cause}")
        _answer(Answer(os.getpid(), {"kind": type(exc).__name__, **exc.as_dict()}))
        return exc.exit_code
    _answer(Answer(os.getpid()))
    if holding is None:
        _log("the slot is there already; nothing to hold")
        return 0
    source, snapshot_name = holding
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    with source:
        return _hold(request, source, snapshot_name, told)


def make_slot(request: Request) -> tuple[psycopg.Connection, str] | None:
    """Make the slot and note it on the target; the session that holds its snapshot, and its name.

    None if the target knows the slot's consistent point already: there is nothing to do.
    """
    called = application_name(request.migration)
    # The holder before this one may wait as long as its own patience allows.
    waiting = {"lock_timeout": f"{int(request.patience + 60)}s"}
    with connect(
        request.target_dsn, application_name=called, side="target", settings=waiting
    ) as target:
        try:
            locks.wait_lock(target, locks.Role.SNAPSHOT)
            there = migration.read(target)
        except psycopg.Error as exc:
            raise coded(exc, "target", "waiting for another snapshot holder") from exc
        if there is None or there.names != request.names:
            raise Refused(
                "CDCM-MIGRATION-GONE",
                f"the target no longer knows the migration {request.migration!r}",
                "Start it again with `cdc-migrator migrate`.",
            )
        if there.consistent_point is not None:
            return None
        source = connect(
            request.source_dsn,
            application_name=called,
            side="source",
            settings={"transaction_timeout": "0"},
        )
        try:
            return source, _make(request, source, target)
        except BaseException:
            source.close()
            raise


def _make(request: Request, source: psycopg.Connection, target: psycopg.Connection) -> str:
    slot = request.names.slot
    try:
        journal.write(target, "slot-create", slot=slot)
        _drop(request)
        facts = server_facts(source)
        with _replication(request) as replication:
            point, exported = _create(replication, slot, request.patience)
            # The snapshot lives as long as this transaction, which ends with the process.
            source.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            source.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(exported))
            row = source.execute("SELECT pg_export_snapshot(), pg_current_snapshot()::text")
            name, snapshot = row.fetchone() or ("", "")
    except psycopg.errors.LockNotAvailable as exc:
        raise _too_long(request.patience) from exc
    except psycopg.Error as exc:
        raise coded(exc, "source", "making the replication slot") from exc
    try:
        migration.update(
            target,
            "slot-created",
            consistent_point=point,
            snapshot_name=name,
            snapshot=snapshot,
            snapshot_holder_pid=os.getpid(),
            source_system_identifier=facts.system_identifier,
            source_timeline=facts.timeline,
        )
    except psycopg.Error as exc:
        # Nobody knows of the slot: better gone than keeping the source's log. Should this fail
        # too, the next holder or `abort` finds and drops it.
        source.execute("ROLLBACK")
        _drop(request)
        raise coded(exc, "target", "noting the slot's consistent point") from exc
    _log(f"slot {slot} at {point}; holding snapshot {name}")
    return str(name)


def _drop(request: Request) -> None:
    called = application_name(request.migration)
    with connect(request.slot_dsn, application_name=called, side="source") as conn:
        slots.drop(conn, request.names.slot)


def _replication(request: Request) -> psycopg.Connection:
    # A replication session understands the simple protocol only, hence the client-side cursor.
    return psycopg.connect(
        make_conninfo(
            request.slot_dsn,
            replication="database",
            application_name=application_name(request.migration),
        ),
        autocommit=True,
        cursor_factory=psycopg.ClientCursor,
    )


def _create(replication: psycopg.Connection, slot: str, patience: float) -> tuple[str, str]:
    """(consistent point, name of the exported snapshot) of a new slot."""
    # Of the time limits only lock_timeout ends the wait for open transactions.
    for setting, value in (
        ("lock_timeout", f"{int(patience)}s"),
        ("statement_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
    ):
        replication.execute("SELECT set_config(%s, %s, false)", (setting, value))
    row = replication.execute(
        sql.SQL("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput (SNAPSHOT 'export')").format(
            sql.Identifier(slot)
        )
    ).fetchone()
    assert row is not None
    return str(row[1]), str(row[2])


def _too_long(patience: float) -> Failed:
    return Failed(
        "CDCM-SLOT-TIMEOUT",
        f"transactions that write on the source stayed open for {patience:.0f} s; a slot can be "
        "made only when all that were open have ended",
        "End them (SELECT pid, xact_start FROM pg_stat_activity WHERE backend_xid IS NOT NULL "
        "ORDER BY xact_start; see pg_prepared_xacts too), then run the same command again.",
    )


def _hold(
    request: Request, source: psycopg.Connection, snapshot_name: str, told: threading.Event
) -> int:
    """Keep the snapshot until told otherwise; 1 if the source's session was lost."""
    target: psycopg.Connection | None = None
    try:
        while not told.wait(1.0):
            try:
                source.execute("SELECT 1")
            except psycopg.Error as exc:
                _log(f"the snapshot is lost: {describe(exc)}")
                return 1
            try:
                target = target or connect(
                    request.target_dsn,
                    application_name=application_name(request.migration),
                    side="target",
                )
                if not _wanted(target, snapshot_name):
                    _log("the snapshot is no longer needed")
                    return 0
            except (MigratorError, psycopg.Error):
                # A target that is away for a while must not cost the snapshot.
                if target is not None:
                    target.close()
                target = None
    finally:
        if target is not None:
            target.close()
    _log("told to end")
    return 0


def _wanted(target: psycopg.Connection, snapshot_name: str) -> bool:
    if not schema.exists(target, "target"):
        return False
    there = migration.read(target)
    return there is not None and there.snapshot_name == snapshot_name


def _log(text: str) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    sys.stderr.write(f"{stamp} {text}\n")
    sys.stderr.flush()


def _answer(answer: Answer) -> None:
    try:
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()
        # From here on nobody listens; a closed pipe must not hurt at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except BrokenPipeError:
        _log("the command that started this process has ended")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
