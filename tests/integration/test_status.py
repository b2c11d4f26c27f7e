"""`status` and the sampler against real servers: what is there is shown, what is not is told."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

from cdc_migrator.control import load, migration, progress, schema
from cdc_migrator.control.migration import Phase
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.model.naming import Names
from cdc_migrator.model.outside import Brokers, Workers
from cdc_migrator.model.tables import TableName
from cdc_migrator.monitor.sample import CatchUp
from cdc_migrator.monitor.sampler import Places, Sampler
from cdc_migrator.monitor.session import unless_slow
from cdc_migrator.stack.local import StackInfo
from tests.support.samples import SERVICE
from tests.support.typed import plain_environment, typed

NOWHERE = "postgresql://postgres@127.0.0.1:1/none"


@dataclass
class Site:
    """A source with two tables and a slot, a target with a control schema, a topic."""

    names: Names
    source: str
    target: str
    stack: StackInfo
    directory: Path

    def places(self, **changes: Any) -> Places:
        found: dict[str, Any] = {
            "migration": self.names.migration,
            "source_dsn": lambda: self.source,
            "target_dsn": lambda: self.target,
            "workers": Workers.at(self.stack.connect_url),
            "brokers": Brokers(self.stack.bootstrap_servers),
        }
        return Places(**{**found, **changes})

    def write(self, **changes: Any) -> None:
        document = {
            "name": self.names.migration,
            "source": {"dsn": self.source},
            "target": {"dsn": self.target},
            "kafka": {"bootstrap_servers": self.stack.bootstrap_servers},
            "connect": {
                "url": self.stack.connect_url,
                "secrets_dir": str(self.stack.secrets_dir),
            },
        }
        (self.directory / "migration.yaml").write_text(yaml.safe_dump({**document, **changes}))

    def status(self, *args: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of the command."""
        done = typed("status", *args, directory=self.directory, env=plain_environment())
        return done.returncode, done.stdout, done.stderr

    def document(self) -> dict[str, Any]:
        code, out, err = self.status("-o", "json")
        assert (code, err) == (0, "")
        parsed: dict[str, Any] = json.loads(out)
        return parsed


@pytest.fixture
def site(stack: StackInfo, source_db: str, target_db: str, tmp_path: Path) -> Iterator[Site]:
    """Nothing was started yet; the topic goes away at the end."""
    names = Names(f"t{secrets.token_hex(4)}")
    with psycopg.connect(source_db, autocommit=True) as conn:
        conn.execute("CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE people (id int)")
    made = Site(names, source_db, target_db, stack, tmp_path)
    made.write()
    yield made
    admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
    if names.topic in admin.list_topics(timeout=10).topics:
        for done in admin.delete_topics([names.topic]).values():
            done.result(timeout=10)


def begin(site: Site, phase: Phase = Phase.STREAM) -> None:
    """Put a migration of this phase on both sides, as the ordinary steps would."""
    with psycopg.connect(site.source, autocommit=True) as conn:
        schema.ensure(conn, "source")
        tables = read_tables(conn)
        conn.execute(
            "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (site.names.slot,)
        )
        conn.execute("INSERT INTO orders SELECT generate_series(1, 20000)")
    with psycopg.connect(site.target, autocommit=True) as conn:
        schema.ensure(conn, "target")
        migration.create(conn, site.names.migration)
        load.register(conn, [(table, 1) for table in tables])
        progress.create(conn, site.names.topic, 1)
        migration.set_phase(conn, phase)
    admin = AdminClient({"bootstrap.servers": site.stack.bootstrap_servers})
    for made in admin.create_topics([NewTopic(site.names.topic, 1, 1)]).values():
        made.result(timeout=20)


def fill_topic(site: Site, committed: int, open_too: int) -> Producer:
    """Records of one committed transaction, then some of an open one, whose producer is given."""
    servers = {"bootstrap.servers": site.stack.bootstrap_servers}
    producer = Producer({**servers, "transactional.id": site.names.topic})
    producer.init_transactions(30)
    for count in (committed, open_too):
        producer.begin_transaction()
        for number in range(count):
            producer.produce(site.names.topic, b"%d" % number)
        producer.flush(30)
        if count is committed:
            producer.commit_transaction(30)
    return producer


def advance(site: Site, offset: int, committed_ago: float) -> None:
    """Apply a transaction that the source committed so many seconds ago."""
    with psycopg.connect(site.target, autocommit=True) as conn:
        claimed = progress.claim(conn, "me@here:1")
        assert claimed is not None
        at = int((time.time() - committed_ago) * 1e6)
        step = progress.Advance(offset, 99, at, 1)
        with conn.transaction():
            progress.advance(conn, claimed.epoch, claimed.applies, claimed.next_offset, step)
            progress.count(conn, {TableName("public", "orders"): (3, 2, 1, 0, 0)})
        progress.seen(conn, claimed.epoch, SERVICE.to_json())


def test_before_anything_was_started(site: Site) -> None:
    """A coded message with the next command, and exit code 1."""
    code, out, err = site.status()
    assert (code, out) == (1, "")
    assert "CDCM-MIGRATION-NONE" in err
    assert "cdc-migrator migrate" in err


def test_a_stream_is_shown_with_the_numbers_that_are_there(site: Site) -> None:
    """Tables, slot, end of the committed log, lag; the connector is truthfully missing."""
    begin(site)
    producer = fill_topic(site, committed=10, open_too=5)
    advance(site, offset=4, committed_ago=2.0)
    with Sampler(site.places()) as sampler:
        sample = sampler.sample()
    producer.abort_transaction(30)
    assert sample.notes == ()
    assert sample.phase is Phase.STREAM
    assert sample.slot is not None
    assert (sample.slot.exists, sample.slot.active) == (True, False)
    assert sample.slot.retained_bytes is not None
    assert sample.slot.retained_bytes > 20_000
    assert sample.connector is not None
    assert not sample.connector.exists
    assert sample.end_offset == 11, "ten records and the transaction's marker, none of the open one"
    assert sample.tables is not None
    assert [(t.source, t.events_applied) for t in sample.tables] == [
        ("public.orders", 6),
        ("public.people", 0),
    ]
    assert sample.service == SERVICE, "what the service said last, while it is alive"
    assert sample.lag_seconds == SERVICE.lag_seconds


def test_what_threatens_is_measured(site: Site) -> None:
    """A topic that deletes, a wait for a lock on the target, connections, sizes, the log's pace."""
    begin(site)
    with psycopg.connect(site.target, autocommit=True) as conn:
        conn.execute("CREATE TABLE orders (id int)")
    advance(site, offset=4, committed_ago=600.0)
    admin = AdminClient({"bootstrap.servers": site.stack.bootstrap_servers})
    limit = ConfigEntry("retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(
        ConfigResource.Type.TOPIC, site.names.topic, incremental_configs=[limit]
    )
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(timeout=10)
    with Sampler(site.places()) as sampler:
        first, taken = sampler.sample(), time.monotonic()
        with (
            psycopg.connect(site.target) as holder,
            psycopg.connect(site.target) as waiter,
            ThreadPoolExecutor(1) as pool,
        ):
            holder.execute("LOCK TABLE orders")
            waiting = pool.submit(waiter.execute, "SELECT FROM orders")
            wait_for_lock(site, waiter.info.backend_pid)
            with Sampler(site.places()) as anew:
                held = anew.sample()
            holder.rollback()
            waiting.result(10)
        with psycopg.connect(site.source, autocommit=True) as conn:
            conn.execute("INSERT INTO orders SELECT generate_series(30001, 40000)")
        time.sleep(max(0.0, 1.1 - (time.monotonic() - taken)))  # no pace from less than a second
        second = sampler.sample()

    assert first.retention is not None
    assert (first.retention.seconds, first.retention.bytes) == (3600, None)
    assert not first.retention.unlimited
    assert first.retention_seconds_left == pytest.approx(3000, abs=10)
    for server in (first.source_server, first.target_server):
        assert server is not None
        assert 1 <= server.connections < server.max_connections
        assert server.database_bytes > 1 << 20
    assert first.target_server is not None
    assert (first.target_server.lock_waiters, first.target_server.lock_wait_seconds) == (0, 0)
    assert held.target_server is not None
    assert held.target_server.lock_waiters == 1
    assert (held.target_server.lock_wait_seconds or 0) > 0
    assert first.slot is not None
    assert (first.slot.unconfirmed_bytes or 0) > 20_000
    assert first.slot_seconds_left is None, "no limit is set"
    assert first.catch_up == CatchUp(SERVICE.events_pending, 1900.0, 1910.0), (
        "one sample says nothing of the pace, so what the service said holds"
    )
    assert (second.wal_bytes_per_second or 0) > 100_000
    assert first.source_ahead is not None
    assert abs(first.source_ahead) < 1


def test_a_question_that_takes_too_long_leaves_the_rest_known(site: Site) -> None:
    """The server gives it up; the session goes on, in the same transaction."""
    with psycopg.connect(site.target) as conn:
        conn.execute("SET LOCAL statement_timeout = '50ms'")
        assert unless_slow(conn, lambda: conn.execute("SELECT pg_sleep(5)")) is None
        assert unless_slow(conn, lambda: conn.execute("SELECT 7").fetchone()) == (7,)


def wait_for_lock(site: Site, pid: int) -> None:
    """Until this session of the target waits for a lock."""
    deadline = time.monotonic() + 10
    with psycopg.connect(site.target, autocommit=True) as conn:
        query = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
        while conn.execute(query, (pid,)).fetchone() == (0,):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_without_a_service_the_lag_grows_and_pending_is_a_bound(site: Site) -> None:
    """The same numbers from the rows, once nobody says anything."""
    begin(site)
    fill_topic(site, committed=10, open_too=1).abort_transaction(30)
    advance(site, offset=4, committed_ago=30.0)
    with psycopg.connect(site.target, autocommit=True) as conn:
        stored = progress.read(conn)
        assert stored is not None
        progress.release(conn, stored.epoch)
    with Sampler(site.places()) as sampler:
        first = sampler.sample()
        with psycopg.connect(site.target, autocommit=True) as conn:
            conn.execute(
                "UPDATE cdc_migrator.stream_progress SET applied_at = applied_at - interval '9 s'"
            )
        second = sampler.sample()
    assert first.service is None
    assert first.lag_seconds == pytest.approx(30, abs=1)
    assert first.end_offset is not None
    assert (first.events_pending, first.pending_exact) == (first.end_offset - 4, False)
    assert second.lag_seconds is not None
    assert second.lag_seconds >= 30


def test_the_command_tells_it_to_programs_and_to_people(site: Site) -> None:
    """One document with the agreed keys; a table with phases and the verdict."""
    begin(site)
    advance(site, offset=4, committed_ago=1.0)
    whole = site.document()
    assert whole["schema_version"] == 1
    assert (whole["migration"], whole["phase"]) == (site.names.migration, "stream")
    assert whole["tables"][0]["events_applied"] == 6
    assert whole["ready"]["verdict"] is False
    assert "nobody reads from the replication slot" in whole["ready"]["reasons"]
    code, out, _ = site.status()
    assert code == 0
    for part in ("→ [stream]", "public.orders", f"{site.names.slot} NOT active", "no, because"):
        assert part in out


def test_a_source_that_does_not_answer_leaves_nulls_and_a_note(site: Site) -> None:
    """The rest is still shown."""
    begin(site)
    site.write(source={"dsn": NOWHERE})
    whole = site.document()
    assert whole["slot"] is None
    assert whole["phase"] == "stream"
    (note,) = whole["notes"]
    assert (note["part"], note["code"]) == ("source", "CDCM-DB-UNREACHABLE")


def test_kafka_and_connect_that_do_not_answer_are_notes(site: Site) -> None:
    """Within their time limits, and not twice."""
    begin(site)
    places = site.places(workers=Workers.at("http://127.0.0.1:1"), brokers=Brokers("127.0.0.1:1"))
    started = time.monotonic()
    with Sampler(places) as sampler:
        sample = sampler.sample()
    assert time.monotonic() - started < 15
    assert sorted(note.code for note in sample.notes) == [
        "CDCM-CONNECT-UNREACHABLE",
        "CDCM-KAFKA-UNREACHABLE",
    ]
    assert (sample.connector, sample.end_offset) == (None, None)
    assert sample.slot is not None


def test_a_topic_that_is_gone_is_told(site: Site) -> None:
    """It is neither an empty one nor a broker that does not answer."""
    begin(site)
    admin = AdminClient({"bootstrap.servers": site.stack.bootstrap_servers})
    for done in admin.delete_topics([site.names.topic]).values():
        done.result(timeout=10)
    with Sampler(site.places()) as sampler:
        sample = sampler.sample()
    assert [note.code for note in sample.notes] == ["CDCM-STREAM-TOPIC-MISSING"]
    assert (sample.end_offset, sample.events_pending) == (None, None)


def test_without_the_target_the_command_fails_with_its_code(site: Site) -> None:
    """And the sampler still finds the slot by what the source knows."""
    begin(site)
    with psycopg.connect(site.source, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO cdc_migrator.captured (name, generation, owner) VALUES (%s, 1, 'x')",
            (site.names.migration,),
        )
    with Sampler(site.places(target_dsn=lambda: NOWHERE)) as sampler:
        sample = sampler.sample()
    assert (sample.phase, sample.tables, sample.lag_seconds) == (None, None, None)
    assert sample.slot is not None
    assert sample.slot.exists
    site.write(target={"dsn": NOWHERE})
    code, out, err = site.status("--json")
    assert (code, out) == (1, "")
    assert json.loads(err)["error"]["code"] == "CDCM-DB-UNREACHABLE"


def test_a_target_of_another_migration_is_refused(site: Site) -> None:
    """Its numbers would be the other one's."""
    begin(site)
    site.write(name="another")
    code, _, err = site.status()
    assert code == 3
    assert "CDCM-TARGET-TAKEN" in err


def test_a_session_that_broke_between_two_samples_is_opened_again(site: Site) -> None:
    """A restarted server costs at most the sample in between."""
    begin(site)
    with Sampler(site.places()) as sampler:
        assert sampler.sample().notes == ()
        for dsn in (site.source, site.target):
            with psycopg.connect(dsn, autocommit=True) as conn:
                conn.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                    "WHERE application_name = 'cdc-migrator monitor' "
                    "AND datname = current_database()"
                )
        sample = sampler.sample()
        assert sample.notes == ()
        assert sample.phase is Phase.STREAM


def test_watching_prints_a_line_each_time_until_it_is_stopped(site: Site) -> None:
    """For programs one document a line; Ctrl-C ends it with 130."""
    begin(site)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "cdc_migrator.cli.main", "status"),
            *("--watch", "--every", "0.2", "--json"),
        ],
        cwd=site.directory,
        stdout=subprocess.PIPE,
        text=True,
        # A shell starts what runs in the background with SIGINT ignored, which is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    try:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    assert all(line["phase"] == "stream" for line in lines)
    assert lines[0]["sampled_at"] < lines[2]["sampled_at"]
