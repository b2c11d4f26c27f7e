"""Both sides at one commit point, while the application writes and whatever is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import psycopg
import pytest

from cdc_migrator.errors import Failed, Refused
from cdc_migrator.faultpoints import VARIABLE
from cdc_migrator.service.alignment import RequestedAlignment
from tests.faults import alignment, balance, bank
from tests.support.fenced import let_in
from tests.support.live import LISTENS, LiveMigration, one, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def live(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveMigration]:
    """The bank, loaded; nobody applies its changes yet."""
    from tests.support.stack import fresh_database

    with fresh_database(stack.source_dsn) as source, fresh_database(stack.target_dsn) as target:
        alignment.create(source)
        live = LiveMigration(tmp_path_factory.mktemp("align"), "align", source, target, stack)
        try:
            live.prepare()
            yield live
        finally:
            live.close()


@contextmanager
def running(live: LiveMigration, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A service that has read from which transaction on it knows what it applied."""
    process = live.start("run", env=env)
    try:
        wait_for("the service listens", lambda: one(live.target, LISTENS))
        yield process
    finally:
        live.stop(process)


OPEN = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cdc-migrator align'"


def test_points_are_exact_under_writers_and_show_what_was_altered(live: LiveMigration) -> None:
    """Rows at one point are the same on both sides; one that was altered on the target is not."""
    with running(live), bank.Bank(live.source, 150), alignment.LongWriters(live.source):
        rounds = alignment.align_often(live.source, live.target, 15)
        assert rounds.aligned == 15, str(rounds)
        assert rounds.false_alarms == [], str(rounds)
        with let_in(live.target) as conn:
            conn.execute("SET session_replication_role = replica")
            conn.execute("INSERT INTO bank.trace VALUES (99)")
        seen = alignment.align_often(live.source, live.target, 2)
        assert [wrong for _, wrong in seen.false_alarms] == [{"trace": (0, 1)}] * 2
        with let_in(live.target) as conn:
            conn.execute("DELETE FROM bank.trace WHERE writer = 99")


def test_without_a_service_nothing_is_aligned(live: LiveMigration) -> None:
    """And the command says what to start."""
    with RequestedAlignment(live.target) as asking, pytest.raises(Refused) as refused:
        asking.align()
    assert refused.value.code == "CDCM-ALIGN-NO-RUN"


def test_what_was_given_to_a_killed_command_is_taken_back(live: LiveMigration) -> None:
    """Its snapshots do not stay behind."""
    ask = (
        "import sys, time; from cdc_migrator.service.alignment import RequestedAlignment\n"
        "asking = RequestedAlignment(sys.stdin.readline().strip()); asking.align()\n"
        "print('there', flush=True)\n"
        "time.sleep(60)"
    )
    with running(live):
        command = subprocess.Popen(
            [sys.executable, "-c", ask], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with command:
            assert command.stdin is not None
            assert command.stdout is not None
            command.stdin.write(live.target + "\n")
            command.stdin.flush()
            assert command.stdout.readline() == "there\n"
            assert one(live.source, OPEN) > 0
            assert one(live.target, OPEN) > 0
            command.kill()
        wait_for("its sessions are gone", lambda: one(live.source, OPEN) == 0, 10)
        wait_for("its sessions are gone", lambda: one(live.target, OPEN) == 0, 10)


@contextmanager
def stalled_standby(source: str) -> Iterator[None]:
    """Commits with ``synchronous_commit = on`` wait for a standby that there is not."""
    with psycopg.connect(source, autocommit=True) as conn:
        conn.execute("ALTER SYSTEM SET synchronous_commit = 'local'")
        conn.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        conn.execute("SELECT pg_reload_conf()")
        wait_for("the setting", lambda: one(source, "SHOW synchronous_standby_names") == "nobody")
        try:
            yield
        finally:
            conn.execute("ALTER SYSTEM RESET synchronous_standby_names")
            conn.execute("ALTER SYSTEM RESET synchronous_commit")
            conn.execute("SELECT pg_reload_conf()")


class Invisible(threading.Thread):
    """A transaction that is in the log and in the stream, and that no snapshot sees."""

    def __init__(self, source: str) -> None:
        super().__init__(daemon=True)
        self._source = source
        self._pid = 0
        self.start()
        wait_for("it waits", lambda: self._pid and one(source, WAITS, self._pid), 20)

    def run(self) -> None:
        with psycopg.connect(self._source, autocommit=True) as conn:
            self._pid = conn.info.backend_pid
            conn.execute("SET synchronous_commit = on")
            conn.execute("INSERT INTO bank.trace VALUES (8), (8)")

    def show(self) -> None:
        """End the wait: from now on it is seen."""
        assert one(self._source, "SELECT pg_cancel_backend(%s)", self._pid)
        self.join(20)


WAITS = "SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = %s"
TRACES = "SELECT count(*) FROM bank.trace WHERE writer = 8"


def test_a_transaction_that_its_own_server_does_not_show_yet_is_waited_for(
    live: LiveMigration,
) -> None:
    """At last with the stream standing still; if it takes too long, the stream goes on."""
    before = one(live.target, TRACES)
    with running(live), RequestedAlignment(live.target) as asking, stalled_standby(live.source):
        asking.align()
        hidden = Invisible(live.source)
        wait_for("it is applied", lambda: one(live.target, TRACES) == before + 2)
        with pytest.raises(Failed) as failed:
            asking.align()
        assert failed.value.code == "CDCM-ALIGN-UNSEEN"
        later = threading.Timer(0.5, hidden.show)
        later.start()
        at = asking.align()
        later.join()
        assert asking.answer["retakes"] > 0
        assert asking.answer["still"]
        assert alignment.differences(live.source, live.target, at) == {}


@pytest.mark.parametrize("place", ["align.ahead", "align.taken"])
def test_killed_while_something_is_applied_ahead_nothing_is_lost_or_doubled(
    live: LiveMigration, place: str
) -> None:
    """The next process applies what was held back, and only that; also in a keyless table."""
    connector = f"{live.stack.connect_url}/connectors/cdcm-align-1"
    before = one(live.target, TRACES)
    with running(live, **{VARIABLE: f"{place}:1:KILL"}) as process, stalled_standby(live.source):
        live.drain()
        httpx.put(f"{connector}/pause", timeout=30).raise_for_status()
        wait_for(
            "the connector pauses",
            lambda: "RUNNING" not in httpx.get(f"{connector}/status", timeout=30).text,
        )
        hidden = Invisible(live.source)
        with psycopg.connect(live.source, autocommit=True) as conn:
            conn.execute("INSERT INTO bank.trace VALUES (8), (8), (8)")
            conn.execute(
                "INSERT INTO bank.scratch VALUES (-1, 1) ON CONFLICT (id) DO UPDATE SET n = 2"
            )
        # Whom a kill took has left its markers.
        left = one(live.source, MARKERS)
        with RequestedAlignment(live.target) as asking:
            asked = threading.Thread(target=lambda: _failing(asking), daemon=True)
            asked.start()
            wait_for("a marker", lambda: one(live.source, MARKERS) > left)
            httpx.put(f"{connector}/resume", timeout=30).raise_for_status()
            assert process.wait(60) == -signal.SIGKILL
            hidden.show()
        ahead = one(live.target, "SELECT applied_ahead FROM cdc_migrator.stream_progress")
        assert ahead, "nothing was applied ahead"
        assert one(live.target, TRACES) == before + 3
    with running(live):
        live.drain()
        wait_for("nothing is ahead", lambda: not one(live.target, AHEAD))
        assert one(live.target, TRACES) == before + 5
        assert balance.differences(live.source, live.target) == []
        asked.join(60)


MARKERS = "SELECT count(*) FROM cdc_migrator.marker WHERE kind = 'barrier'"
AHEAD = "SELECT cardinality(applied_ahead) FROM cdc_migrator.stream_progress"


def _failing(asking: RequestedAlignment) -> None:
    with suppress(Failed, Refused, psycopg.Error):
        asking.align()
