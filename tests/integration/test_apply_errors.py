"""Errors of a real target that pass: tried again, nothing lost or doubled, the order kept.

Each test brings the error about as it comes in life, and then what ends it; where that cannot be
done here a trigger raises it, with a counter that no rollback takes back.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from cdc_migrator.apply.applier import Applied, Applier
from cdc_migrator.control import progress
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Failed
from cdc_migrator.model.changes import Transaction
from cdc_migrator.model.tables import Table, TableName
from tests.support.live import wait_for
from tests.support.recorded import PLACEHOLDER, Recorder, batch, recorded_pair

CHILD, LOG, PARENT = (TableName("shop", name) for name in ("child", "log", "parent"))

SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.parent (id int PRIMARY KEY, body text);
CREATE TABLE shop.child (id int PRIMARY KEY, n int);
CREATE TABLE shop.log (what int);
ALTER TABLE shop.log REPLICA IDENTITY FULL;
"""


class Pauses(threading.Event):
    """The applier's `stopping`, which it waits on between two attempts: that is noticed."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.count += 1
        return super().wait(timeout)


@dataclass
class Rig:
    """A source that is recorded, a target, and an applier that works in a thread of its own."""

    source: psycopg.Connection
    target: psycopg.Connection
    dsn: str
    tables: list[Table]
    recorder: Recorder
    pauses: Pauses = field(default_factory=Pauses)

    @contextmanager
    def applier(self, **options: Any) -> Iterator[Applier]:
        with Applier(self.dsn, self.tables, PLACEHOLDER, stopping=self.pauses, **options) as made:
            assert made.start("test", stale_after=0) is not None
            yield made

    def logged(self, value: int, **parent: Any) -> Transaction:
        """A transaction that inserts into the keyless table, and a parent where one is given."""
        self.recorder.insert(LOG, what=value)
        if parent:
            self.recorder.insert(PARENT, **parent)
        return self.recorder.commit()

    def log(self) -> list[int]:
        """The keyless table in the order in which its rows were written."""
        return [row[0] for row in self.target.execute("SELECT what FROM shop.log ORDER BY ctid")]

    def spoil(self, code: str, times: int) -> None:
        """The next inserts into the log fail with this SQLSTATE, so many times."""
        self.target.execute(
            f"CREATE SEQUENCE shop.tries; CREATE FUNCTION shop.spoil() RETURNS trigger "
            f"LANGUAGE plpgsql AS $$ BEGIN IF nextval('shop.tries') <= {times} THEN "
            f"RAISE 'spoilt' USING ERRCODE = '{code}'; END IF; RETURN NEW; END $$;"
            "CREATE TRIGGER spoil BEFORE INSERT ON shop.log FOR EACH ROW "
            "EXECUTE FUNCTION shop.spoil(); ALTER TABLE shop.log ENABLE ALWAYS TRIGGER spoil"
        )


@pytest.fixture
def rig() -> Iterator[Rig]:
    with recorded_pair(SCHEMA, SCHEMA, {PARENT: ("id",), CHILD: ("id",)}) as pair:
        yield Rig(pair.source, pair.target, pair.target_dsn, pair.tables, pair.recorder)


@contextmanager
def applying(applier: Applier, *transactions: Transaction) -> Iterator[list[Applied]]:
    """Apply beside the test; the list has the result once the block is left."""
    done: list[Applied] = []
    thread = threading.Thread(target=lambda: done.append(applier.apply(batch(*transactions))))
    thread.start()
    try:
        yield done
    finally:
        thread.join(30)
    assert done, "it was not applied"


def test_applier_that_loses_a_deadlock_tries_again(rig: Rig) -> None:
    """Somebody on the target locks the same rows in the other order."""
    rig.recorder.insert(CHILD, id=1, n=1)
    first = rig.logged(1, id=1, body="before")
    rig.recorder.update(CHILD, "n = 2", "true")
    rig.recorder.update(PARENT, "body = 'after'", "true")
    second = rig.logged(2)
    with rig.applier() as applier, connect(rig.dsn, application_name="rival") as rival:
        applier.apply(batch(first))
        # Whoever looks for a deadlock first is the one that gives way.
        rival.execute("SET deadlock_timeout = '1min'")
        rival.execute("BEGIN")
        rival.execute("SELECT FROM shop.parent FOR UPDATE")
        with applying(applier, second) as done:
            wait_for("the applier's lock", lambda: waits_for_a_lock(rig))
            rival.execute("UPDATE shop.child SET n = n")
            wait_for("the applier's defeat", lambda: rig.pauses.count >= 1)
            rival.execute("ROLLBACK")
    assert done[0].retries >= 1
    assert rig.target.execute("SELECT n FROM shop.child").fetchall() == [(2,)]
    assert rig.log() == [1, 2]


def waits_for_a_lock(rig: Rig) -> bool:
    return bool(
        rig.target.execute(
            "SELECT FROM pg_stat_activity WHERE application_name = 'cdc-migrator apply' "
            "AND wait_event_type = 'Lock' AND datname = current_database()"
        ).rowcount
    )


def test_timeouts_of_the_role_do_not_reach_the_applier(rig: Rig) -> None:
    """What a database or role sets for its applications does not end a batch that must wait."""
    for setting in ("statement_timeout = '400ms'", "lock_timeout = '1ms'"):
        name = rig.target.info.dbname
        rig.target.execute(f"ALTER ROLE CURRENT_USER IN DATABASE {name} SET {setting}".encode())
    first = rig.logged(1, id=1, body="")
    rig.recorder.update(PARENT, "body = 'x'", "true")
    second = rig.logged(2)
    with rig.applier() as applier, connect(rig.dsn, application_name="rival") as rival:
        applier.apply(batch(first))
        rival.execute("BEGIN")
        rival.execute("SELECT FROM shop.parent FOR UPDATE")
        with applying(applier, second) as done:
            waited = (
                "SELECT FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid() "
                "AND clock_timestamp() - waitstart > '600ms'"
            )
            wait_for("a long wait", lambda: rig.target.execute(waited).rowcount)
            rival.execute("ROLLBACK")
    assert done[0].retries == 0
    assert rig.log() == [1, 2]


@pytest.mark.parametrize(
    "code",
    ["40001", "40P01", "53100", "53200", "53300", "55P03", "55006", "57014", "58030", "08006"],
)
def test_error_that_passes_is_tried_again(rig: Rig, code: str) -> None:
    """Serialization, deadlock, disk full, memory, lock, cancel, input/output: applied once."""
    rig.spoil(code, times=2)
    with rig.applier() as applier:
        applied = applier.apply(batch(rig.logged(1), rig.logged(2)))
        applier.apply(batch(rig.logged(3)))
    assert applied.retries == 2
    assert rig.log() == [1, 2, 3]
    stored = progress.read(rig.target)
    assert stored is not None
    assert stored.transactions_applied == 3


def test_error_that_does_not_pass_in_time_ends_it_and_the_next_one_goes_on(rig: Rig) -> None:
    """Nothing of the batch is there, nothing behind it; once it is mended all of it comes."""
    rig.spoil("53100", times=10_000)
    one, other = rig.logged(1), rig.logged(2)
    with rig.applier(retry_for=0.3) as applier, pytest.raises(Failed) as failed:
        applier.apply(batch(one, other))
    assert failed.value.code == "CDCM-APPLY-UNAVAILABLE"
    assert rig.log() == []
    rig.target.execute("DROP TRIGGER spoil ON shop.log")
    with rig.applier() as applier:
        applier.apply(batch(one, other))
    assert rig.log() == [1, 2]


def test_full_disk_is_waited_out(rig: Rig) -> None:
    """A tablespace without room: the batch comes when there is room again."""
    with small_tablespace(rig.target, "8m") as name:
        rig.target.execute(f"ALTER TABLE shop.parent SET TABLESPACE {name}".encode())
        rig.target.execute(f"CREATE TABLE public.ballast (body text) TABLESPACE {name}".encode())
        rig.target.execute("ALTER TABLE public.ballast ALTER body SET STORAGE EXTERNAL")
        rig.target.execute("INSERT INTO public.ballast SELECT repeat('x', 6000000)")
        long = secrets.token_hex(1_250_000)  # what compresses well would find room
        rig.target.execute("ALTER TABLE shop.parent ALTER body SET STORAGE EXTERNAL")
        try:
            with rig.applier() as applier:
                before = rig.logged(1)
                applier.apply(batch(before))
                with applying(applier, rig.logged(2, id=1, body=long), rig.logged(3)) as done:
                    wait_for("two attempts", lambda: rig.pauses.count >= 2)
                    assert rig.log() == [1]
                    rig.target.execute("DROP TABLE public.ballast")
            assert done[0].retries >= 2
            assert rig.log() == [1, 2, 3]
            assert rig.target.execute("SELECT body FROM shop.parent").fetchall() == [(long,)]
        finally:
            rig.target.execute("DROP TABLE IF EXISTS public.ballast; DROP TABLE shop.parent")


@contextmanager
def small_tablespace(conn: psycopg.Connection, size: str) -> Iterator[str]:
    """A tablespace on a file system of its own; skips where one cannot be mounted."""
    row = conn.execute("SHOW data_directory").fetchone()
    assert row is not None
    owner = Path(row[0]).stat()
    place = Path(tempfile.mkdtemp(prefix="cdcm-small-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    try:
        if mounted.returncode != 0:
            pytest.skip("no file system can be mounted here")
        os.chown(place, owner.st_uid, owner.st_gid)
        name = f"small_{os.getpid()}"
        conn.execute(f"CREATE TABLESPACE {name} LOCATION '{place}'".encode())
        try:
            yield name
        finally:
            conn.execute("CHECKPOINT")
            conn.execute(f"DROP TABLESPACE {name}".encode())
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(place)], check=True)
        place.rmdir()


def test_server_that_only_reads_is_left_for_another(rig: Rig) -> None:
    """During a fail-over the address leads to a standby for a while: connect until it writes."""
    database = sql.Identifier(rig.target.info.dbname)
    with rig.applier() as applier:
        applier.apply(batch(rig.logged(1)))
        alter = sql.SQL("ALTER DATABASE {} {}")
        only = sql.SQL("SET default_transaction_read_only = on")
        rig.target.execute(alter.format(database, only))
        rig.target.execute(
            "SELECT pg_terminate_backend(owner_backend) FROM cdc_migrator.stream_progress"
        )
        with applying(applier, rig.logged(2), rig.logged(3)) as done:
            wait_for("more than one attempt", lambda: rig.pauses.count >= 3)
            reset = sql.SQL("RESET default_transaction_read_only")
            rig.target.execute(alter.format(database, reset))
    assert done[0].retries >= 3
    assert rig.log() == [1, 2, 3]
