"""Two `run` processes for one stream: one applies, the other waits or is fenced."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from cdc_migrator.control import progress
from cdc_migrator.control import schema as control
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.demo import shop
from cdc_migrator.demo.digest import compare, digest_both
from cdc_migrator.demo.workload import Settings, WorkloadProcess
from cdc_migrator.errors import Fenced
from tests.support.live import LiveMigration, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

TAKEOVER = 3.0
# The successor looks once a second, and needs a moment to end its predecessor's session.
LATEST = TAKEOVER + 4.0

WRITERS = Settings(writers=3, rate=100, bulk_rows=4_000, bulk_seconds=0.5, bulk_every=1.5)


class Run:
    """One `run` process with its log."""

    def __init__(self, migration: LiveMigration, name: str) -> None:
        self._migration = migration
        self._log = f"{name}.log"
        self.process = migration.start("run", log=self._log)
        self.pid = self.process.pid

    def log(self) -> str:
        return self._migration.log(self._log)

    def says(self, event: str) -> dict[str, Any] | None:
        """The first event of this kind that it has logged so far."""
        events = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return next((e for e in events if e.get("message") == event), None)

    def readiness(self) -> httpx.Response:
        served = self.says("http-served")
        assert served is not None
        return httpx.get(f"http://127.0.0.1:{served['port']}/readyz?verbose", timeout=10)

    def send(self, number: int) -> None:
        self.process.send_signal(number)


class Runs:
    """A migration whose stream several `run` processes want, and the writers on its source."""

    def __init__(self, migration: LiveMigration) -> None:
        self.migration = migration
        self._target = psycopg.connect(migration.target, autocommit=True)
        self.first_epoch = 0

    def prepare(self) -> None:
        self.migration.prepare()
        (self.first_epoch,) = self.one("SELECT epoch FROM cdc_migrator.stream_progress")

    def close(self) -> None:
        self._target.close()
        self.migration.close()

    def one(self, query: str, *parameters: Any) -> tuple[Any, ...]:
        row = self._target.execute(query, parameters).fetchone()
        assert row is not None
        return row

    def start(self, name: str) -> Run:
        return Run(self.migration, name)

    def owner(self) -> tuple[int, int]:
        """(epochs since the stream was made, process id of the owner)."""
        epoch, owner = self.one("SELECT epoch, owner FROM cdc_migrator.stream_progress")
        return epoch - self.first_epoch, int(owner.rpartition(":")[2])

    def backends(self) -> list[int]:
        """The sessions of appliers on this target."""
        rows = self._target.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'cdc-migrator apply' "
            "AND datname = current_database() ORDER BY 1"
        )
        return [row[0] for row in rows]

    def owner_backend(self) -> int:
        return int(self.one("SELECT owner_backend FROM cdc_migrator.stream_progress")[0])

    def applied(self) -> int:
        return int(self.one("SELECT transactions_applied FROM cdc_migrator.stream_progress")[0])

    def goes_on(self, by: int = 100, seconds: float = 60) -> None:
        """Wait until more transactions are applied."""
        before = self.applied()
        wait_for("the stream goes on", lambda: self.applied() >= before + by, seconds)

    def both(self) -> tuple[Run, Run]:
        """Two that started at once: the one that applies, and the one that stands by."""
        both = [self.start("one"), self.start("other")]

        def settled() -> bool:
            return all(run.says("stream-claimed") or run.says("standby") for run in both)

        wait_for("both have said what they do", settled, 30)
        owner, standby = sorted(both, key=lambda run: run.says("standby") is not None)
        assert owner.says("standby") is None
        assert self.owner() == (1, owner.pid)
        return owner, standby

    def taken_over_by(self, run: Run, epoch: int) -> float:
        """Wait until `run` owns the stream under `epoch`; returns the seconds."""
        began = time.monotonic()
        wait_for("the takeover", lambda: self.owner() == (epoch, run.pid), 30)
        return time.monotonic() - began

    def in_transaction(self) -> bool:
        """Whether the owner is inside a transaction that has written rows."""
        (inside,) = self.one(
            "SELECT EXISTS (SELECT FROM pg_stat_activity a JOIN cdc_migrator.stream_progress p "
            "ON a.pid = p.owner_backend WHERE a.backend_xid IS NOT NULL)"
        )
        return bool(inside)

    def stop_inside_a_transaction(self, run: Run) -> None:
        """SIGSTOP while the process has a transaction open that the server cannot end alone."""

        def stopped_inside() -> bool:
            if not self.in_transaction():
                return False
            run.send(signal.SIGSTOP)
            # The statement under way ends by itself; only what needs the process stays open.
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                if not self.in_transaction():
                    run.send(signal.SIGCONT)
                    return False
                time.sleep(0.05)
            return True

        wait_for("a stop inside a transaction", stopped_inside, 60, 0.005)

    def journal_of(self, run: Run) -> list[str]:
        rows = self._target.execute(
            "SELECT action FROM cdc_migrator.journal WHERE actor LIKE %s ORDER BY id",
            (f"%:{run.pid}",),
        )
        return [row[0] for row in rows]

    def assert_equal(self) -> None:
        """Everything written is applied and both sides hold the same rows."""
        assert self.migration.drain(), self.migration.halted()
        lines = compare(*digest_both(self.migration.source, self.migration.target, shop.SCHEMA))
        assert sum(line.source.rows for line in lines if line.source) > 10_000
        assert [line.table for line in lines if not line.equal] == []


@pytest.fixture
def runs(stack: Any, source_db: str, target_db: str, tmp_path: Path) -> Iterator[Runs]:
    shop.create(source_db, 0.02)
    migration = LiveMigration(
        tmp_path,
        "two_runs",
        source_db,
        target_db,
        stack,
        {
            "tables": {"include": ["shop.*"]},
            "service": {"http_port": 0, "takeover_after": f"{TAKEOVER:g}s"},
        },
    )
    runs = Runs(migration)
    try:
        runs.prepare()
        yield runs
    finally:
        runs.close()


def writing(runs: Runs) -> WorkloadProcess:
    """Writers on the source: small transactions and large ones among them."""
    migration = runs.migration
    return WorkloadProcess(migration.source, WRITERS, migration.directory / "workload.log")


def test_standby_takes_over_when_the_owner_ends(runs: Runs) -> None:
    """After a SIGKILL it goes on soon; after SIGTERM it need not wait for anything."""
    with writing(runs) as workload:
        first, second = runs.both()
        runs.goes_on()
        answer = second.readiness()
        assert (answer.status_code, "standby" in answer.text) == (503, True)
        assert first.readiness().status_code == 200

        first.send(signal.SIGKILL)
        killed = runs.taken_over_by(second, epoch=2)
        runs.goes_on()
        wait_for("the second is ready", lambda: second.readiness().status_code == 200, 10)

        third = runs.start("third")
        wait_for("the third stands by", lambda: third.says("standby"), 30)
        second.send(signal.SIGTERM)
        assert second.process.wait(20) == 0
        stopped = runs.taken_over_by(third, epoch=3)
        runs.goes_on()
        workload.stop()

    assert killed <= LATEST
    assert stopped < TAKEOVER
    runs.assert_equal()
    assert runs.owner() == (3, third.pid)


@pytest.mark.parametrize("inside", [False, True], ids=["anywhere", "inside a transaction"])
def test_owner_that_was_paused_is_fenced(runs: Runs, inside: bool) -> None:
    """Stopped for longer than a takeover takes, then continued: it ends, and wrote nothing."""
    with writing(runs) as workload:
        first, second = runs.both()
        runs.goes_on()
        backend = runs.owner_backend()
        if inside:
            runs.stop_inside_a_transaction(first)
        else:
            first.send(signal.SIGSTOP)

        seconds = runs.taken_over_by(second, epoch=2)
        assert backend not in runs.backends()
        assert runs.backends() == [runs.owner_backend()]
        runs.goes_on()
        assert first.process.poll() is None
        journal = runs.journal_of(first)

        first.send(signal.SIGCONT)
        assert first.process.wait(30) == Fenced.exit_code
        assert "CDCM-STREAM-FENCED" in first.log()
        runs.goes_on()
        workload.stop()

    assert seconds <= LATEST
    assert runs.journal_of(first) == journal
    runs.assert_equal()
    assert runs.owner() == (2, second.pid)
    assert runs.backends() == [runs.owner_backend()]
    assert runs.migration.halted() is None
    assert runs.migration.stop(second.process) == 0


# The claim itself


@pytest.fixture
def stream(target_db: str) -> str:
    """A target with a stream that nobody owns."""
    with connect(target_db, application_name="test") as conn:
        control.ensure(conn, "target")
        progress.create(conn, "topic", 1)
    return target_db


def test_one_of_many_claimants_gets_the_stream(stream: str) -> None:
    """However many claim at the same moment, one becomes the owner and keeps its session."""
    claimants, rounds = 6, 20
    barrier = threading.Barrier(claimants)

    def claim(number: int) -> list[int]:
        won = []
        for _ in range(rounds):
            with connect(stream, application_name=f"claimant {number}") as conn:
                barrier.wait(30)
                claimed = progress.claim(conn, str(number), stale_after=30)
                barrier.wait(30)
                if claimed is not None:
                    won.append(claimed.epoch)
                    progress.release(conn, claimed.epoch)
        return won

    with ThreadPoolExecutor(claimants) as pool:
        won = [epoch for epochs in pool.map(claim, range(claimants)) for epoch in epochs]

    assert sorted(won) == list(range(min(won), min(won) + rounds))


OWNER = """
import sys
from cdc_migrator.control import progress
from cdc_migrator.databases.postgres.connect import connect
with connect(sys.stdin.readline().strip(), application_name="owner") as conn:
    while True:
        claimed = progress.claim(conn, "owner", stale_after=0)
        progress.seen(conn, claimed.epoch, {"some": "sample"})
        progress.reattach(conn, claimed.epoch)
"""


def test_owner_that_is_stopped_while_it_claims_or_reports_holds_no_lock(stream: str) -> None:
    """Nothing but applying is open for longer than a statement: a successor never waits for it."""
    moments = random.Random(5)
    states = []
    with (
        subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE) as owner,
        connect(stream, application_name="test") as conn,
    ):

        def state() -> str | None:
            row = conn.execute(
                "SELECT state FROM pg_stat_activity WHERE application_name = 'owner' "
                "AND datname = current_database()"
            ).fetchone()
            return row[0] if row else None

        try:
            assert owner.stdin is not None
            owner.stdin.write(f"{stream}\n".encode())
            owner.stdin.flush()
            wait_for("the owner's session", state)
            first = conn.execute("SELECT epoch FROM cdc_migrator.stream_progress").fetchone()
            for _ in range(40):
                time.sleep(moments.uniform(0.005, 0.02))
                owner.send_signal(signal.SIGSTOP)
                wait_for("the end of the statement under way", lambda: state() != "active")
                states.append(state())
                owner.send_signal(signal.SIGCONT)
            epoch = conn.execute("SELECT epoch FROM cdc_migrator.stream_progress").fetchone()
        finally:
            owner.kill()
    assert first is not None
    assert epoch is not None
    assert epoch[0] > first[0] + 10
    assert "idle" in states
    assert set(states) <= {"idle", "active"}


def test_former_owner_is_told_when_it_reports(stream: str) -> None:
    """Saying that it is alive tells an owner that it has been replaced, and changes nothing."""
    with (
        connect(stream, application_name="former") as former,
        connect(stream, application_name="next") as conn,
        connect(stream, application_name="beside") as beside,
    ):
        old = progress.claim(former, "former")
        assert old is not None
        assert progress.claim(conn, "next", stale_after=30) is None
        new = progress.claim(conn, "next", stale_after=0)
        assert new is not None
        assert new.epoch == old.epoch + 1
        with pytest.raises(Fenced):
            progress.seen(beside, old.epoch, None)
        with pytest.raises(Fenced):
            progress.reattach(beside, old.epoch)
        seen = conn.execute("SELECT epoch FROM cdc_migrator.stream_owner_seen").fetchall()
        assert seen == [(new.epoch,)]
        with pytest.raises(psycopg.errors.AdminShutdown):
            former.execute("SELECT 1")
        progress.seen(beside, new.epoch, None)
