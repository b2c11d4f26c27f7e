"""Capture on the real stack: started, killed, started again, stopped, given up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from psycopg import sql

from cdc_migrator.capture import slot as slots
from cdc_migrator.capture.connect_rest import ConnectClient
from cdc_migrator.capture.findings import Severity
from cdc_migrator.capture.holder import application_name
from cdc_migrator.capture.preflight import Preflight, check
from cdc_migrator.capture.spawn import log_path
from cdc_migrator.capture.start import CaptureOptions, capture_status, stop_capture
from cdc_migrator.control import locks, migration, progress
from cdc_migrator.control import schema as control
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import ConfigurationError, Failed, Refused
from cdc_migrator.model.naming import Names
from cdc_migrator.model.outside import Brokers, Workers
from cdc_migrator.model.positions import lsn_to_int
from cdc_migrator.monitor.remote import ConnectAsker
from cdc_migrator.stack.local import StackInfo
from tests.integration.capture_rig import Rig, eventually
from tests.support.private_postgres import private_database

pytestmark = pytest.mark.stack


@pytest.fixture
def rig(stack: StackInfo, source_db: str, target_db: str, tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(stack, source_db, target_db, tmp_path / "state")
    rig.fill(500)
    yield rig
    rig.abort()


# Starts capture and kills itself with SIGKILL when the step with this number is announced.
KILLED = """
import os, signal, sys
from cdc_migrator.capture import start
from cdc_migrator.capture.start import CaptureOptions
from cdc_migrator.databases.postgres import catalog
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.naming import Names
from cdc_migrator.model.outside import Brokers, Workers
from pathlib import Path
source, target, url, servers, name, secrets_dir, state_dir, fatal = sys.stdin.read().split("\\n")
steps = 0
def notify(step):
    global steps
    steps += 1
    if steps == int(fatal):
        os.kill(os.getpid(), signal.SIGKILL)
with connect(source, application_name="test") as conn:
    tables = catalog.read_tables(conn, ["shop.*"])
options = CaptureOptions(Path(secrets_dir), Path(state_dir))
workers, brokers = Workers.at(url), Brokers(servers)
start.start_capture(source, target, workers, brokers, Names(name), tables, options, notify)
"""


def start_and_die(rig: Rig, step: int) -> None:
    """Start capture in a process that is killed as it begins its step with this number."""
    lines = (
        rig.source,
        rig.target,
        rig.stack.connect_url,
        rig.stack.bootstrap_servers,
        rig.names.migration,
        rig.stack.secrets_dir,
        rig.state_dir,
        step,
    )
    done = subprocess.run(
        [sys.executable, "-c", KILLED],
        input="\n".join(map(str, lines)),
        text=True,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


STEPS = (
    8  # of a first start: event triggers, publication, slot, two topics, connector, running, ping
)


def test_first_start_streams_and_second_changes_nothing(rig: Rig) -> None:
    """A second start of a running capture finds everything as it must be and touches none of it."""
    first = rig.start()
    assert len(first.did) == STEPS
    before = state(rig)

    second = rig.start()

    assert second.did == ()
    assert second.consistent_point == first.consistent_point
    assert state(rig) == before


def state(rig: Rig) -> dict[str, object]:
    """What a start could change."""
    with ConnectClient(Workers.at(rig.stack.connect_url)) as client:
        config = client.config(rig.names.connector)
    return {
        "config": config,
        "slot": rig.one(
            rig.source,
            "SELECT restart_lsn IS NOT NULL, active_pid "
            "FROM pg_replication_slots WHERE slot_name = %s",
            rig.names.slot,
        ),
        "published": rig.one(
            rig.source,
            "SELECT array_agg(prrelid::regclass::text ORDER BY 1) FROM pg_publication_rel",
        ),
        "markers": rig.one(rig.source, "SELECT count(*) FROM cdc_migrator.marker"),
        "journal": rig.one(rig.target, "SELECT max(id) FROM cdc_migrator.journal"),
        "migration": rig.one(rig.target, "SELECT m::text FROM cdc_migrator.migration m"),
        "progress": rig.one(rig.target, "SELECT p::text FROM cdc_migrator.stream_progress p"),
    }


def test_progress_begins_at_the_consistent_point(rig: Rig) -> None:
    """The stream's progress row starts where the snapshot ends, in the topic's first record."""
    started = rig.start()

    with connect(rig.target, application_name="test") as conn:
        row = progress.read(conn)
    assert row is not None
    assert (row.topic, row.next_offset) == (rig.names.topic, 0)
    assert row.commit_position == lsn_to_int(started.consistent_point)


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_start_killed_at_any_step_is_completed_by_the_next(rig: Rig, step: int) -> None:
    """Wherever a start is killed under writers, the next one ends in an exact hand-over."""
    with rig.writing() as writers:
        start_and_die(rig, step)
        rig.start()
        assert rig.load().anew == ()
        eventually(lambda: writers.commits > 50)

    assert rig.account() == rig.content(rig.source)


def test_slot_made_but_not_noted_is_made_anew(rig: Rig) -> None:
    """A slot whose holder died before the target knew of it is replaced, and nothing is lost."""
    start_and_die(rig, 2)
    with psycopg.connect(rig.source, autocommit=True) as conn:
        conn.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (rig.names.slot,))
        old = slots.read(conn, rig.names.slot)
    with rig.writing() as writers:
        rig.start()
        rig.load()
        eventually(lambda: writers.commits > 50)

    assert old is not None
    point = rig.one(rig.target, "SELECT consistent_point::text FROM cdc_migrator.migration")
    assert lsn_to_int(point) > lsn_to_int(old.confirmed_flush or "0/0")
    assert rig.account() == rig.content(rig.source)


def test_start_waits_for_open_transactions_and_says_so(rig: Rig) -> None:
    """A writing transaction that stays open stops the slot's creation with a coded error."""
    impatient = CaptureOptions(rig.stack.secrets_dir, rig.state_dir, slot_patience=1.0)
    with psycopg.connect(rig.source) as writer:
        writer.execute("INSERT INTO shop.plain VALUES (1000, 'open')")
        with pytest.raises(Failed) as caught:
            rig.start(impatient)
        writer.commit()

    assert caught.value.code == "CDCM-SLOT-TIMEOUT"
    assert (
        rig.one(
            rig.source,
            "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()",
        )
        == 0
    )
    assert rig.start(impatient).did[-1].startswith("waiting for the first change")


@pytest.mark.usefixtures("local_stack")
def test_password_is_in_no_configuration_argument_or_log(rig: Rig) -> None:
    """The password appears in the secrets file, which only its owner may read, and nowhere else."""
    password = urlsplit(rig.source).password
    assert password
    rig.start()
    with ConnectClient(Workers.at(rig.stack.connect_url)) as client:
        assert password not in json.dumps(client.config(rig.names.connector))
    rest = httpx.get(f"{rig.stack.connect_url}/connectors?expand=info&expand=status").text
    assert password not in rest
    for process in psutil.process_iter(["cmdline"]):
        assert password not in " ".join(process.info["cmdline"] or [])
    holder = psutil.Process(holder_pid(rig))
    assert "cdc_migrator.capture.holder" in holder.cmdline()
    assert password not in "\n".join(holder.environ().values())
    logs = [log_path(rig.state_dir, rig.names.migration), *rig.stack.state_dir.glob("logs/*")]
    assert len(logs) > 2
    for log in logs:
        assert password.encode() not in log.read_bytes(), log
    journal = rig.one(rig.target, "SELECT string_agg(j::text, '') FROM cdc_migrator.journal j")
    assert password not in journal

    file = rig.stack.secrets_dir / f"{rig.names.connector}.properties"
    assert password in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def holder_pid(rig: Rig) -> int:
    return int(rig.one(rig.target, "SELECT snapshot_holder_pid FROM cdc_migrator.migration"))


def test_holder_outlives_its_starter_and_ends_after_the_load(rig: Rig) -> None:
    """The snapshot holder needs no parent, and goes when the load no longer needs its snapshot."""
    start_and_die(rig, STEPS)
    holder = psutil.Process(holder_pid(rig))
    assert holder.is_running()

    rig.load()

    eventually(lambda: gone(holder), 10)
    assert (
        rig.one(
            rig.source,
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s",
            application_name(rig.names.migration),
        )
        == 0
    )


def gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_stop_keeps_the_slot_and_start_goes_on(rig: Rig) -> None:
    """Stopping ends the connector's session only; what is written meanwhile arrives later."""
    rig.start()
    rig.load()
    assert stop_capture(rig.target, Workers.at(rig.stack.connect_url), rig.names)

    def look() -> object:
        return capture_status(rig.source, Workers.at(rig.stack.connect_url), rig.names)

    eventually(lambda: not look().slot.active)  # type: ignore[attr-defined]
    with rig.writing() as writers:
        eventually(lambda: writers.commits > 100)
    again = rig.start()

    assert f"connector {rig.names.connector}: running" in again.did
    status = capture_status(rig.source, Workers.at(rig.stack.connect_url), rig.names)
    assert status.slot is not None
    assert status.slot.streaming
    assert status.connector is not None
    assert status.connector.running
    assert rig.account() == rig.content(rig.source)


def test_second_starter_is_refused(rig: Rig) -> None:
    """While one process starts capture, another one is told so."""
    rig.start()
    with connect(rig.target, application_name="test") as other:
        assert locks.try_lock(other, locks.Role.CAPTURE)
        with pytest.raises(Refused, match="CDCM-CAPTURE-RUNNING"):
            rig.start()


def test_lost_slot_is_refused(rig: Rig) -> None:
    """A slot that was dropped behind our back is never made anew in silence."""
    rig.start()
    stop_capture(rig.target, Workers.at(rig.stack.connect_url), rig.names)
    with psycopg.connect(rig.source, autocommit=True) as conn:
        slots.drop(conn, rig.names.slot)

    with pytest.raises(Refused, match="CDCM-SLOT-LOST"):
        rig.start()


def test_other_tables_are_refused_by_name(rig: Rig) -> None:
    """A changed choice of tables does not change a running capture; the difference is named."""
    rig.start()

    with pytest.raises(Refused, match=r"CDCM-CAPTURE-TABLES.*shop\.log"):
        rig.start(tables=["shop.item", "shop.plain"])


def test_name_of_another_targets_migration_is_refused(rig: Rig, stack: StackInfo) -> None:
    """Two targets cannot share a name on one source, and aborting one leaves the other whole."""
    rig.start()
    with fresh_target(stack) as target:
        rival = Rig(stack, rig.source, target, rig.state_dir, rig.names)
        with pytest.raises(Refused, match="CDCM-SOURCE-NAME-TAKEN"):
            rival.start()
        aborted = rival.abort()

    assert aborted.complete
    assert aborted.removed == ("control schema cdc_migrator on the target",)
    assert rig.start().did == ()


@contextmanager
def fresh_target(stack: StackInfo) -> Iterator[str]:
    from tests.support.stack import fresh_database

    with fresh_database(stack.target_dsn) as dsn:
        yield dsn


def test_worker_that_cannot_reach_the_source_is_refused(rig: Rig) -> None:
    """What Connect has against the configuration is said before a connector is made."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        options = CaptureOptions(
            rig.stack.secrets_dir, rig.state_dir, source_port=unused.getsockname()[1]
        )
        with pytest.raises(Refused, match="CDCM-CONNECTOR-CONFIG"):
            rig.start(options)
    assert rig.start().names == rig.names


def test_override_of_what_exactness_rests_on_is_refused(rig: Rig) -> None:
    """Settings that decide what an event means cannot be changed by configuration."""
    options = CaptureOptions(
        rig.stack.secrets_dir, rig.state_dir, connector={"exactly.once.support": "requested"}
    )
    with pytest.raises(ConfigurationError, match="CDCM-CONNECTOR-OVERRIDE"):
        rig.start(options)


def test_failed_connector_is_reported_with_its_reason(rig: Rig) -> None:
    """A connector that cannot log in any more is named failed, with the reason and no password."""
    role, first, second = "cap_" + rig.names.migration, "first-Secret-1", "second-Secret-2"
    with psycopg.connect(rig.source, autocommit=True) as conn:
        conn.execute(
            sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}").format(
                sql.Identifier(role), first
            )
        )
    parts = urlsplit(rig.source)
    own = parts._replace(netloc=f"{role}:{first}@{parts.hostname}:{parts.port}").geturl()
    try:
        rival = Rig(rig.stack, own, rig.target, rig.state_dir, rig.names)
        rival.start()
        with psycopg.connect(rig.source, autocommit=True) as conn:
            conn.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), second))
            stop_capture(rig.target, Workers.at(rig.stack.connect_url), rig.names)
            eventually(lambda: not slots.read(conn, rig.names.slot).active)  # type: ignore[union-attr]
            with ConnectClient(Workers.at(rig.stack.connect_url)) as client:
                client.resume(rig.names.connector)
                failed = eventually(
                    lambda: (s := client.status(rig.names.connector)) and s.failed and s, 60
                )
        asker = ConnectAsker(Workers.at(rig.stack.connect_url))
        shown = asker.state(rig.names)
        asker.close()
        assert (shown.running, shown.worker is None) == (False, False)
        for trace in (failed.trace, shown.trace or ""):
            assert "password authentication failed" in trace
            assert first not in trace
    finally:
        rig.abort()
        with psycopg.connect(rig.source, autocommit=True) as conn:
            conn.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
            conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.mark.parametrize("step", [*range(1, STEPS + 1, 2), None])
def test_abort_at_any_step_leaves_nothing(rig: Rig, step: int | None) -> None:
    """Whatever a start had made when it was killed, abort removes; a second abort finds nothing."""
    holder = None
    if step is None:
        rig.start()
        rig.load()
    else:
        start_and_die(rig, step)
    if rig.one(rig.target, "SELECT snapshot_holder_pid FROM cdc_migrator.migration"):
        holder = psutil.Process(holder_pid(rig))

    aborted = rig.abort()

    assert aborted.complete
    assert "control schema cdc_migrator on the target" in aborted.removed
    assert leftovers(rig) == {}
    if holder is not None:
        eventually(lambda: gone(holder), 10)
    assert rig.abort().removed == ()
    if step is None:
        assert rig.one(rig.target, "SELECT count(*) FROM shop.item") == 500


def leftovers(rig: Rig) -> dict[str, object]:
    """What is still there of a migration, by kind."""
    name = rig.names.migration
    found: dict[str, object] = {}
    for what, dsn, query in (
        ("slots", rig.source, "SELECT count(*) FROM pg_replication_slots WHERE slot_name ~ %s"),
        ("publications", rig.source, "SELECT count(*) FROM pg_publication WHERE pubname ~ %s"),
    ):
        found[what] = rig.one(dsn, query, name)
    for what, dsn in (("source schema", rig.source), ("target schema", rig.target)):
        found[what] = rig.one(dsn, "SELECT to_regnamespace('cdc_migrator') IS NOT NULL")
    with ConnectClient(Workers.at(rig.stack.connect_url)) as client:
        found["connectors"] = [c for c in client.names() if name in c]
    topics = AdminClient({"bootstrap.servers": rig.stack.bootstrap_servers}).list_topics(timeout=10)
    found["topics"] = [t for t in topics.topics if name in t]
    found["secrets"] = [f.name for f in rig.stack.secrets_dir.iterdir() if name in f.name]
    return {what: there for what, there in found.items() if there}


def test_abort_removes_what_it_can_reach_and_names_the_rest(rig: Rig) -> None:
    """An abort without Connect is incomplete and says so; the next one with it completes."""
    rig.start()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        partial = rig.abort(f"http://127.0.0.1:{unused.getsockname()[1]}")

    assert not partial.complete
    assert [kept.error.code for kept in partial.kept] == ["CDCM-CONNECT-UNREACHABLE"]
    assert f"replication slot {rig.names.slot}" in partial.removed
    rest = rig.abort()
    assert rest.complete
    assert f"connector {rig.names.connector} with its offsets" in rest.removed
    assert leftovers(rig) == {}


def test_same_name_starts_clean_after_an_abort(rig: Rig) -> None:
    """Offsets of the earlier life are not taken up: the second hand-over is exact, too."""
    rig.start()
    rig.load()
    rig.abort()
    with psycopg.connect(rig.target, autocommit=True) as conn:
        conn.execute("TRUNCATE shop.item, shop.log, shop.plain")
    with rig.writing() as writers:
        rig.start()
        rig.load()
        eventually(lambda: writers.commits > 50)

    assert rig.account() == rig.content(rig.source)


# Preflight


def run_check(rig: Rig, **changes: object) -> Preflight:
    given: dict[str, object] = {
        "source_dsn": rig.source,
        "target_dsn": rig.target,
        "workers": Workers.at(rig.stack.connect_url),
        "brokers": Brokers(rig.stack.bootstrap_servers),
        "names": rig.names,
        "include": ["shop.*"],
    }
    return check(**(given | changes))  # type: ignore[arg-type]


def codes(result: Preflight) -> set[str]:
    return {f.code for f in result.findings if f.severity is Severity.REFUSE}


def test_check_of_a_fitting_setup_finds_nothing(rig: Rig) -> None:
    """Nothing stands against the stack and its tables, before a start and after one."""
    assert codes(run_check(rig)) == set()
    rig.start()
    assert codes(run_check(rig)) == set()


def test_check_names_every_fault_of_the_tables_at_once(rig: Rig) -> None:
    """Missing, keyless and unlogged tables, types that events lack, a filled target: one report."""
    with psycopg.connect(rig.source, autocommit=True) as conn:
        conn.execute(
            "CREATE TABLE shop.bare (a int); CREATE UNLOGGED TABLE shop.fleeting (a int);"
            "CREATE TABLE shop.shapes (id int PRIMARY KEY, p polygon);"
            "CREATE TABLE shop.mute (id int PRIMARY KEY);"
            "ALTER TABLE shop.mute REPLICA IDENTITY NOTHING"
        )
    with psycopg.connect(rig.target, autocommit=True) as conn:
        conn.execute("INSERT INTO shop.plain VALUES (1, 'stray')")

    result = run_check(rig, include=["shop.*", "shop.itme"])

    found = {(f.code, f.object) for f in result.findings}
    assert found == {
        ("CDCM-TABLES-MISSING", "shop.itme"),
        ("CDCM-TABLE-NO-IDENTITY", "shop.bare"),
        ("CDCM-TABLE-NO-IDENTITY", "shop.mute"),
        ("CDCM-TABLE-UNLOGGED", "shop.fleeting"),
        ("CDCM-TYPE-BESIDE", "shop.shapes"),
        ("CDCM-TARGET-NOT-EMPTY", "shop.plain"),
    }
    told = {f.object: f.remedy for f in result.findings}
    assert "shop.item" in told["shop.itme"]
    assert 'ALTER TABLE "shop"."bare" REPLICA IDENTITY FULL' in told["shop.bare"]
    with pytest.raises(Refused):
        result.require()


def test_check_refuses_a_source_without_logical_log(rig: Rig) -> None:
    """A server with wal_level=replica is refused with the command that changes it."""
    with private_database() as source:
        result = run_check(rig, source_dsn=source, include=None)

    (finding,) = [f for f in result.findings if f.code == "CDCM-SOURCE-WAL-LEVEL"]
    assert finding.severity is Severity.REFUSE
    assert "wal_level = 'logical'" in finding.remedy


def test_check_reports_everything_that_cannot_be_reached(rig: Rig) -> None:
    """Four dead ends, four findings; none hides another."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        dead = f"postgresql://postgres:x@127.0.0.1:{port}/app"
        result = run_check(
            rig,
            source_dsn=dead,
            target_dsn=dead,
            workers=Workers.at(f"http://127.0.0.1:{port}"),
            brokers=Brokers(f"127.0.0.1:{port}"),
        )

    assert {(f.code, f.object) for f in result.findings} == {
        ("CDCM-DB-UNREACHABLE", "source"),
        ("CDCM-DB-UNREACHABLE", "target"),
        ("CDCM-CONNECT-UNREACHABLE", "connect"),
        ("CDCM-KAFKA-UNREACHABLE", "kafka"),
    }


def test_check_tells_of_a_role_that_may_neither_replicate_nor_hold_triggers_off(rig: Rig) -> None:
    """It is refused on the source; on the target, where nothing acts yet, it is a warning."""
    role = "weak_" + rig.names.migration
    for dsn in (rig.source, rig.target):
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'weak'").format(sql.Identifier(role))
            )

    def weak(dsn: str) -> str:
        parts = urlsplit(dsn)
        return parts._replace(netloc=f"{role}:weak@{parts.hostname}:{parts.port}").geturl()

    try:
        result = run_check(
            rig, source_dsn=weak(rig.source), target_dsn=weak(rig.target), include=["shop.none"]
        )
    finally:
        for dsn in (rig.source, rig.target):
            with psycopg.connect(dsn, autocommit=True) as conn:
                conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
    told = {one.code: one.severity for one in result.findings}
    assert told["CDCM-SOURCE-REPLICATION"] is Severity.REFUSE
    assert told["CDCM-TARGET-REPLICA-ROLE"] is Severity.WARN


@pytest.mark.slow
@pytest.mark.usefixtures("local_stack")
def test_check_refuses_workers_that_cannot_do_what_the_stream_needs(
    rig: Rig, tmp_path: Path
) -> None:
    """Real ones: exactly-once source support and overrides off; no Debezium at all."""
    unfit = {
        "exactly.once.source.support": "disabled",
        "connector.client.config.override.policy": "None",
    }
    empty = {"plugin.path": str(tmp_path / "plugins")}
    (tmp_path / "plugins").mkdir()
    with ExitStack() as workers:
        urls = [
            workers.enter_context(another_worker(rig.stack, tmp_path / name, settings))
            for name, settings in (("unfit", unfit), ("empty", empty))
        ]
        for url in urls:
            eventually(lambda url=url: answers(url), 90)
        assert codes(run_check(rig, workers=Workers.at(urls[0]))) == {
            "CDCM-CONNECT-EXACTLY-ONCE",
            "CDCM-CONNECT-OVERRIDES",
        }
        assert codes(run_check(rig, workers=Workers.at(urls[1]))) == {"CDCM-CONNECT-PLUGIN"}


@contextmanager
def another_worker(stack: StackInfo, directory: Path, differs: Mapping[str, str]) -> Iterator[str]:
    """A Connect worker, alone in its own cluster, like the stack's but for these settings.

    It need not answer yet.
    """
    directory.mkdir()
    original = stack.state_dir / "connect" / "server.properties"
    (running,) = [
        p for p in psutil.process_iter(["cmdline"]) if str(original) in (p.info["cmdline"] or [])
    ]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = f"another-{os.getpid()}-{port}"
    settings = original.read_text()
    changed = {
        **differs,
        "group.id": own,
        "config.storage.topic": f"{own}-config",
        "offset.storage.topic": f"{own}-offset",
        "status.storage.topic": f"{own}-status",
        "listeners": f"http://127.0.0.1:{port}",
        "rest.advertised.port": str(port),
    }
    lines = [line for line in settings.splitlines() if line.partition("=")[0] not in changed]
    file = directory / "server.properties"
    file.write_text("\n".join([*lines, *(f"{k}={v}" for k, v in changed.items())]) + "\n")
    command = [str(file) if word == str(original) else word for word in running.cmdline()]
    with (directory / "log").open("wb") as log:
        worker = subprocess.Popen(
            command, env=running.environ(), cwd=directory, stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"
    try:
        yield url
    finally:
        worker.terminate()
        worker.wait(30)
        admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
        for future in admin.delete_topics(
            [f"{own}-{t}" for t in ("config", "offset", "status")]
        ).values():
            future.result(30)
        shutil.rmtree(directory, ignore_errors=True)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/connector-plugins").is_success
    except httpx.HTTPError:
        return False


def test_migration_row_is_needed_by_the_holder(rig: Rig) -> None:
    """A holder that is started for a migration the target does not know ends with a coded error."""
    from cdc_migrator.capture.holder import Request
    from cdc_migrator.capture.spawn import hold_snapshot

    start_and_die(rig, 1)
    with pytest.raises(Refused, match="CDCM-MIGRATION-GONE"):
        hold_snapshot(
            Request(rig.source, rig.target, Names("another").migration, 1, 5.0), rig.state_dir
        )
    with connect(rig.target, application_name="test") as conn:
        there = migration.read(conn)
    assert there is not None
    assert there.consistent_point is None


def test_every_snapshot_that_a_slot_exports_can_be_noted(target_db: str) -> None:
    """One in a few hundred slots has an xmin above its xmax (seen); its text is kept as it is."""
    with connect(target_db, application_name="test") as conn:
        control.ensure(conn, "target")
        migration.create(conn, "odd")
        migration.update(conn, "slot-created", snapshot="1846:1841:")
        there = migration.read(conn)
        assert there is not None
        assert there.snapshot == "1846:1841:"
