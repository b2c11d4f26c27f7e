"""The verbs as they are typed: again, too early, in the wrong place, interrupted, and given up."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from cdc_migrator.stack.local import StackInfo
from tests.support.live import LiveMigration, one, wait_for
from tests.support.stack import fresh_database
from tests.support.typed import CLI

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

SHOP = """
CREATE SCHEMA shop;
CREATE TABLE shop.customer (id int PRIMARY KEY, name text);
CREATE TABLE shop.item (
    id int PRIMARY KEY, customer int REFERENCES shop.customer, note text UNIQUE
);
INSERT INTO shop.customer SELECT g, 'c' || g FROM generate_series(1, 20) g;
INSERT INTO shop.item SELECT g, g % 20 + 1, 'n' || g FROM generate_series(1, 200) g;
"""
NEVER = "it was not so in time"


class Shop(LiveMigration):
    """A small shop and its migration; keeps everything that its verbs have said."""

    said: str = ""

    def cli(self, *arguments: str, check: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = super().cli(*arguments, check=check)
        self.said += done.stdout + done.stderr
        return done

    def several(self, *verbs: str) -> list[subprocess.CompletedProcess[str]]:
        """Type verbs that have nothing to do with each other, two at a time."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda verb: self.cli(*verb.split(), check=None), verbs))

    def typed(self, answer: str, *arguments: str) -> tuple[int, str]:
        """Exit code and output of a verb on a terminal on which `answer` is typed."""
        ours, theirs = pty.openpty()
        try:
            process = subprocess.Popen(
                [*CLI, "--config", str(self.config), *arguments],
                stdin=theirs, stdout=theirs, stderr=theirs,
            )  # fmt: skip
            os.close(theirs)
            os.write(ours, answer.encode() + b"\n")
            told = b""
            while True:
                try:
                    told += os.read(ours, 4096)
                except OSError:  # how Linux tells that the other side was closed
                    break
            return process.wait(60), told.decode()
        finally:
            os.close(ours)

    @contextmanager
    def running(self, verb: str = "run") -> Iterator[subprocess.Popen[bytes]]:
        """A service that streams; stopped at the end of the block, if it still runs."""
        heard = len(self.events())
        process = self.start(verb)
        wait_for(
            f"{verb} streams",
            lambda: any(e["message"] == "stream-claimed" for e in self.events()[heard:]),
        )
        try:
            yield process
        finally:
            self.stop(process)

    def events(self) -> list[dict[str, Any]]:
        """What the services have logged: every line is one document."""
        whole = self.log().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def address(self) -> str:
        """Where the latest service serves."""
        port = [e["port"] for e in self.events() if e["message"] == "http-served"][-1]
        return f"http://127.0.0.1:{port}"

    def rows(self, dsn: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(dsn) as conn:
            return conn.execute("SELECT * FROM shop.item ORDER BY id").fetchall()

    def insert(self, *ids: int) -> None:
        with psycopg.connect(self.source, autocommit=True) as conn:
            for number in ids:
                conn.execute("INSERT INTO shop.item VALUES (%s, 1, %s)", (number, f"n{number}"))

    def traces(self) -> dict[str, list[str]]:
        """What there is of this migration, by kind."""
        with psycopg.connect(self.source) as source, psycopg.connect(self.target) as target:
            schemas = "SELECT nspname::text FROM pg_namespace WHERE nspname = 'cdc_migrator'"
            found = {
                "slot": _column(
                    source,
                    "SELECT slot_name::text FROM pg_replication_slots "
                    "WHERE database = current_database()",
                ),
                "publication": _column(source, "SELECT pubname::text FROM pg_publication"),
                "source": _column(source, schemas),
                "target": _column(target, schemas),
            }
        connectors = httpx.get(f"{self.stack.connect_url}/connectors").json()
        topics = AdminClient({"bootstrap.servers": self.stack.bootstrap_servers}).list_topics(
            timeout=10
        )
        found["connector"] = [c for c in connectors if c.startswith(f"cdcm-{self.name}-")]
        found["topic"] = sorted(t for t in topics.topics if f"cdcm.{self.name}." in t)
        found["secret"] = [f.name for f in self.stack.secrets_dir.glob(f"cdcm-{self.name}-*")]
        return {kind: there for kind, there in found.items() if there}


def _column(conn: psycopg.Connection, query: str) -> list[str]:
    return [row[0] for row in conn.execute(query.encode())]


@pytest.fixture
def shop(stack: StackInfo, source_db: str, target_db: str, tmp_path: Path) -> Iterator[Shop]:
    """Nothing was started yet."""
    made = Shop(tmp_path, "verbs_new", source_db, target_db, stack)
    with psycopg.connect(source_db, autocommit=True) as conn:
        conn.execute(SHOP)
    yield made
    made.close()


@pytest.fixture(scope="module")
def loaded(stack: StackInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Everything but the stream is done."""
    with ExitStack() as cleanup:
        source = cleanup.enter_context(fresh_database(stack.source_dsn))
        target = cleanup.enter_context(fresh_database(stack.target_dsn))
        with psycopg.connect(source, autocommit=True) as conn:
            conn.execute(SHOP)
            conn.execute("SELECT lo_create(0)")
        settings = {"accept": {"CDCM-LEFT-LARGE-OBJECTS": "thumbnails, made anew"}}
        directory = tmp_path_factory.mktemp("verbs")
        made = Shop(directory, "verbs", source, target, stack, settings)
        cleanup.callback(made.close)
        made.prepare()
        yield made


def passwords(made: Shop) -> list[str]:
    found = [urlsplit(dsn).password for dsn in (made.source, made.target)]
    return [password for password in found if password]


def arguments_of_all_processes() -> str:
    return "\n".join(" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"]))


def _ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_verbs_that_need_a_migration_say_that_there_is_none(shop: Shop) -> None:
    """Exit code 3 and the verb that makes one; `abort` finds nothing to remove: 0."""
    verbs = ("run", "capture start", "capture status", "backfill")
    *refused, told_json, nothing = shop.several(*verbs, "capture stop -ojson", "abort --yes")

    for verb, done in zip(verbs, refused, strict=True):
        assert done.returncode == 3, verb
        assert "error CDCM-MIGRATION-MISSING: there is no migration 'verbs_new'" in done.stderr
        assert "remedy: Start it with `cdc-migrator migrate`." in done.stderr
    assert json.loads(told_json.stderr)["error"]["code"] == "CDCM-MIGRATION-MISSING"
    assert nothing.returncode == 0
    assert "there was nothing to remove" in nothing.stderr
    assert shop.traces() == {}


def test_each_step_alone_then_too_early_a_run_then_abort(shop: Shop) -> None:
    """`schema apply`, `capture start`: what they made is removed again, after the typed name."""
    made = json.loads(shop.cli("schema", "apply", "pre-data", "-ojson").stdout)["made"]
    assert any("shop.item" in label or "shop item" in label for label in made)
    assert shop.traces() == {"target": ["cdc_migrator"]}
    aborted = json.loads(shop.cli("abort", "--yes", "-ojson").stdout)
    assert aborted["removed"] == ["control schema cdc_migrator on the target"]
    assert (aborted["kept"], shop.traces()) == ([], {})

    shop.cli("schema", "apply", "pre-data")
    shop.cli("capture", "start")
    there = shop.traces()
    assert set(there) == {
        "slot", "publication", "source", "target", "connector", "topic", "secret",
    }  # fmt: skip
    holder = one(shop.target, "SELECT snapshot_holder_pid FROM cdc_migrator.migration")
    assert psutil.Process(holder).is_running()
    shown = arguments_of_all_processes()
    assert not [password for password in passwords(shop) if password in shown]

    early, early_json, unsure = shop.several("run", "run --json", "abort")
    assert (early.returncode, early_json.returncode) == (3, 3)
    assert "error CDCM-RUN-TOO-EARLY: " in early.stderr
    assert "cdc-migrator migrate" in early.stderr
    assert json.loads(early_json.stderr)["error"]["code"] == "CDCM-RUN-TOO-EARLY"
    assert unsure.returncode == 2, "without a terminal it cannot ask"
    assert "error CDCM-ABORT-CONFIRM" in unsure.stderr
    code, told = shop.typed("verbs", "abort")
    assert code == 2
    assert "CDCM-ABORT-CONFIRM" in told
    assert "nothing was done" in told
    assert shop.traces() == there

    code, told = shop.typed("verbs_new", "abort")
    assert code == 0, told
    for kind, names in there.items():
        for name in names:
            assert re.search(rf"removed .*{re.escape(name)}", told), (kind, name)
    assert shop.traces() == {}
    wait_for("the snapshot holder ends", lambda: _ended(holder))


def test_everything_that_is_done_is_done_once(loaded: Shop) -> None:
    """`migrate` and its steps, typed again, change nothing and say so."""
    state = (
        "SELECT (SELECT row(m.*)::text FROM cdc_migrator.migration m) || "
        "(SELECT string_agg(t::text, '') FROM cdc_migrator.table_progress t)"
    )
    before = one(loaded.target, state)
    migrate, capture, backfill, schema = loaded.several(
        "migrate --no-run", "capture start -ojson", "backfill", "schema apply post-data -ojson"
    )

    assert [d.returncode for d in (migrate, capture, backfill, schema)] == [0, 0, 0, 0]
    assert "nothing to do before the stream" in migrate.stderr
    assert "next: cdc-migrator run" in migrate.stderr
    assert json.loads(capture.stdout)["did"] == []
    assert "220 rows" in backfill.stderr
    assert json.loads(schema.stdout)["made"] == []
    assert one(loaded.target, state) == before
    assert loaded.rows(loaded.target) == loaded.rows(loaded.source)


def test_what_is_accepted_stays_in_sight(loaded: Shop) -> None:
    """With its reason: in `status`, and in the journal from before anything was made."""
    code, reason = "CDCM-LEFT-LARGE-OBJECTS", "thumbnails, made anew"
    people, programs, journal = loaded.several(
        "status", "status -ojson", "journal show -ojson --action findings-accepted"
    )
    assert f"{code}: {reason}" in people.stdout
    assert json.loads(programs.stdout)["accepted"] == [{"code": code, "reason": reason}]
    written = [entry["details"] for entry in json.loads(journal.stdout)["entries"]]
    assert written == [{"accepted": {code: reason}}]


def test_connectors_are_held_against_the_rules(loaded: Shop) -> None:
    """Ours as it would be and as Connect has it, one that somebody brings, one that is nowhere."""
    theirs = loaded.directory / "orders.properties"
    theirs.write_text("connector.class=io.debezium.connector.mysql.MySqlConnector\n")
    ours, stored, brought, absent, rules = loaded.several(
        "connectors lint -ojson",
        f"connectors lint --connector cdcm-{loaded.name}-1 -ojson",
        f"connectors lint {theirs}",
        "connectors lint --connector nobodys",
        "connectors rules -ojson",
    )
    assert (ours.returncode, stored.returncode) == (0, 0), ours.stdout + stored.stdout
    for document in (json.loads(ours.stdout), json.loads(stored.stdout)):
        assert (document["refused"], document["findings"]) == (False, [])
    assert brought.returncode == 3
    assert "CDCM-LINT-CLASS" in brought.stdout
    assert absent.returncode == 3
    assert "CDCM-LINT-CONNECTOR" in absent.stderr
    assert f"cdcm-{loaded.name}-1" in absent.stderr
    assert len(json.loads(rules.stdout)["rules"]) > 40


def test_migrate_goes_on_to_run_until_it_is_interrupted(loaded: Shop) -> None:
    """Ctrl-C finishes the batch and ends with 130; every line that was logged is JSON."""
    with loaded.running("migrate") as process:
        loaded.insert(1001)
        assert loaded.drain()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130

    assert loaded.rows(loaded.target) == loaded.rows(loaded.source)
    events = loaded.events()
    assert all({"timestamp", "level", "logger", "message"} <= set(event) for event in events)
    assert [e["text"] for e in events if e["message"] == "step"] == [
        "nothing to do before the stream: schema, load and indexes are done"
    ]
    assert events[-1]["message"] == "stopped"
    assert loaded.status()["service"]["running"] is False


def test_sigterm_under_writers_ends_run_and_the_next_one_goes_on_there(loaded: Shop) -> None:
    """Exit code 0 within ten seconds; the next run begins at that position and ends equal."""
    stop = threading.Event()

    def write() -> None:
        number = 10_000
        with psycopg.connect(loaded.source, autocommit=True) as conn:
            while not stop.wait(0.002):
                number += 1
                conn.execute("INSERT INTO shop.item VALUES (%s, 2, %s)", (number, f"n{number}"))

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        try:
            with loaded.running() as process:
                streamed = "SELECT count(*) > 100 FROM shop.item WHERE id > 10000"
                wait_for("it works", lambda: one(loaded.target, streamed))
                process.send_signal(signal.SIGTERM)
                assert process.wait(10) == 0
            stood = loaded.progress()["next_offset"]
            assert one(loaded.source, "SELECT max(id) FROM shop.item") > one(
                loaded.target, "SELECT max(id) FROM shop.item"
            )
            with loaded.running():
                claimed = [e for e in loaded.events() if e["message"] == "stream-claimed"][-1]
                assert claimed["offset"] == stood
                stop.set()
                assert loaded.drain()
        finally:
            stop.set()
        writer.result(10)

    assert loaded.rows(loaded.target) == loaded.rows(loaded.source)


METRICS = (
    "end_to_end_lag_seconds", "events_pending", "consumer_lag_records",
    "last_event_applied_timestamp_seconds", "snapshot_rows_total", "snapshot_expected_rows",
    "snapshot_tables_remaining", "slot_retained_bytes", "slot_active", "apply_batch_seconds_count",
    "apply_events_total", "transactions_applied_total", "phase", "build_info",
    "lag_capture_seconds", "lag_delivery_seconds", "records_applied_per_second",
    "records_arriving_per_second", "estimated_catch_up_seconds", "source_wal_bytes_per_second",
    "slot_usable", "slot_unconfirmed_bytes", "topic_retention_unlimited", "connections",
    "connections_max", "database_bytes", "target_fence_up", "target_clock_ahead_seconds",
    "target_lock_wait_seconds", "service_state", "part_measured", "apply_retries_total",
)  # fmt: skip


def test_a_running_service_tells_how_it_is(loaded: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its four addresses and by `status`: the same numbers; and no password anywhere."""
    monkeypatch.setattr(loaded, "from_outside", True)
    with loaded.running():
        loaded.insert(2001, 2002)
        assert loaded.drain()
        told = wait_for(NEVER, lambda: _well(loaded))
        # What the service measures it tells others a moment later.
        status = wait_for("rates", lambda: (s := loaded.status())["catch_up"] and s)
        loaded.cli("status")
        loaded.cli("capture", "status")
        shown = arguments_of_all_processes()
        config = httpx.get(f"{loaded.stack.connect_url}/connectors?expand=info").text

    assert told["/livez"] == told["/healthz"] == told["/readyz"] == "ok\n"
    parts = dict(re.findall(r"^\[(.)\](\w+) ok", told["/readyz?verbose"], re.M))
    assert set(re.findall(r"^\[\+\](\w+) ok", told["/readyz?verbose"], re.M)) == {
        "stream", "target", "kafka", "source",
    }, parts  # fmt: skip
    metrics = told["/metrics"]
    for name in METRICS:
        assert re.search(rf'^cdc_migrator_{name}{{[^}}]*migration="verbs"', metrics, re.M), name
    assert 'cdc_migrator_phase{migration="verbs",phase="stream"} 1.0' in metrics
    inserted = r'^cdc_migrator_apply_events_total{.*op="insert",table="shop.item"} (\S+)'
    found = re.search(inserted, metrics, re.M)
    assert found
    assert float(found[1]) >= 2

    assert {
        "schema_version", "migration", "phase", "lag_seconds", "lag_events", "tables",
        "dead_letters", "ready",
    } <= set(status)  # fmt: skip
    assert (status["migration"], status["phase"]) == ("verbs", "stream")
    assert status["lag_seconds"] < 10
    tables = {table["source"]: table for table in status["tables"]}
    assert tables["shop.item"]["target"] == "shop.item"
    assert tables["shop.item"]["rows_loaded"] == 200
    assert tables["shop.item"]["events_applied"] == tables["shop.item"]["inserts"]
    assert tables["shop.item"]["inserts"] == len(loaded.rows(loaded.source)) - 200
    assert status["ready"]["verdict"] is False
    assert status["ready"]["reasons"]
    assert status["service"]["running"] is True
    stages = status["stages"]
    assert stages["capture_seconds"] + stages["delivery_seconds"] == pytest.approx(
        status["lag_seconds"], abs=2
    ), "of two transactions within two seconds"
    assert status["catch_up"]["seconds"] == 0
    assert status["catch_up"]["records_applied_per_second"] > 0
    assert status["slot"]["wal_bytes_per_second"] > 0
    assert status["retention"]["unlimited"] is True
    assert status["retention"]["seconds_left"] is None
    assert status["connector"]["trace"] is None
    assert status["connector"]["worker"]
    assert abs(status["clocks"]["target_ahead_seconds"]) < 1, "both are this machine's"

    state = [f.read_text(errors="replace") for f in (loaded.directory / "state").rglob("*.log")]
    journal = one(loaded.target, "SELECT string_agg(j::text, '') FROM cdc_migrator.journal j")
    told_by_all = "\n".join([
        shown, config, loaded.said, loaded.log(), journal, json.dumps(told), json.dumps(status),
        *state,
    ])  # fmt: skip
    assert f"cdcm-{loaded.name}-1" in config
    assert f"--config {loaded.config}" in shown
    for password in passwords(loaded):
        assert password not in told_by_all


def _well(made: Shop) -> dict[str, str] | None:
    """What each address answers, once the service is ready and has measured everything, twice."""
    paths = ("/livez", "/healthz", "/readyz", "/readyz?verbose", "/metrics")
    with httpx.Client(base_url=made.address()) as client:
        answers = {path: client.get(path) for path in paths}
    if any(answer.status_code != 200 for answer in answers.values()):
        return None
    page = answers["/metrics"].text
    measured = "_lag_capture_seconds{" in page and "_estimated_catch_up_seconds{" in page
    return {path: answer.text for path, answer in answers.items()} if measured else None


def test_capture_rests_and_goes_on(loaded: Shop) -> None:
    """`stop` is shown by `status` with exit code 1; `start` brings what was written meanwhile.

    The service that waits for it all the time is none the worse for it.
    """
    with loaded.running():
        loaded.cli("capture", "stop")
        shown = loaded.cli("capture", "status", "-ojson", check=1)
        assert json.loads(shown.stdout)["connector"]["state"] == "STOPPED"
        assert json.loads(shown.stdout)["slot"]["retained_bytes"] >= 0
        assert "STOPPED" in loaded.cli("capture", "status", check=1).stdout
        loaded.insert(3001)
        loaded.cli("capture", "start")
        assert json.loads(loaded.cli("capture", "status", "-ojson").stdout)["slot"]["streaming"]
        assert loaded.drain(20)
        assert loaded.rows(loaded.target) == loaded.rows(loaded.source)
        position = loaded.progress()["next_offset"]
        wait_for("lag exporters see it", lambda: _offset_in_kafka(loaded) >= position, 20)


def _offset_in_kafka(made: Shop) -> int:
    """Where the consumer group stands by Kafka's own account."""
    group = ConsumerGroupTopicPartitions(f"cdcm-{made.name}", [TopicPartition(made.topic, 0)])
    admin = AdminClient({"bootstrap.servers": made.stack.bootstrap_servers})
    (answer,) = admin.list_consumer_group_offsets([group]).values()
    (place,) = answer.result(10).topic_partitions
    return int(place.offset)


def test_the_target_is_the_migrations_own(loaded: Shop) -> None:
    """Strangers are refused while changes go on arriving; a fence that was taken off is told and
    put up again by the next start; the setting takes it off for good."""
    with psycopg.connect(loaded.target, autocommit=True) as stranger:
        with loaded.running():
            stranger.execute("SET session_replication_role = replica")
            for statement in ("TRUNCATE shop.item", "UPDATE shop.customer SET name = 'x'"):
                with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="has fenced"):
                    stranger.execute(statement.encode())
            loaded.insert(4001)
            assert loaded.drain()
            told = loaded.status()
            assert (told["target_fence"], told["target_fence_lacking"]) == ("up", [])
            loaded.cli("schema", "diff")
            stranger.execute("ALTER TABLE shop.item DISABLE TRIGGER cdc_migrator_fence")
            told = loaded.status()
            assert (told["target_fence"], told["target_fence_lacking"]) == (
                "partial",
                ["shop.item"],
            )
            assert any("not fenced any more" in why for why in told["ready"]["reasons"])
        with loaded.running():
            warned = wait_for(
                "the warning",
                lambda: [e for e in loaded.events() if e["message"] == "target-fence-was-off"],
            )
            assert [event["tables"] for event in warned] == [["shop.item"]]
            assert loaded.status()["target_fence"] == "up"
        assert loaded.rows(loaded.target) == loaded.rows(loaded.source)

        loaded.cli("--set", "target.fence=false", "migrate", "--no-run")
        assert loaded.status()["target_fence"] == "off"
        stranger.execute("UPDATE shop.item SET id = id")
        loaded.cli("migrate", "--no-run")
        assert loaded.status()["target_fence"] == "up"


def test_another_name_does_not_lay_hands_on_this_migration(loaded: Shop) -> None:
    """A target knows whose it is; nothing of it is stopped, started or removed."""
    there = loaded.traces()
    verbs = ("migrate --no-run", "capture stop", "backfill", "abort --yes")
    for verb, done in zip(
        verbs, loaded.several(*(f"--set name=other {verb}" for verb in verbs)), strict=True
    ):
        assert done.returncode == 3, verb
        assert "error CDCM-TARGET-TAKEN" in done.stderr
        assert "'verbs'" in done.stderr
    assert loaded.traces() == there
    assert json.loads(loaded.cli("capture", "status", "-ojson").stdout)["slot"]["streaming"]


def test_abort_under_a_running_service_leaves_nothing_and_keeps_the_rows(loaded: Shop) -> None:
    """The last phase: all of it is removed, and `run` finds out and ends with a coded error."""
    there = loaded.traces()
    rows = loaded.rows(loaded.target)
    with loaded.running() as process:
        aborted = json.loads(loaded.cli("abort", "--yes", "--json").stdout)
        assert process.wait(30) != 0
    removed = "\n".join(aborted["removed"])
    for kind, names in there.items():
        for name in names:
            assert name in removed, kind
    assert loaded.traces() == {}
    assert "fence of 2 tables of the target" in removed
    assert not one(loaded.target, "SELECT count(*) FROM pg_trigger WHERE tgname ~ '^cdc_migrator'")
    assert loaded.rows(loaded.target) == rows
    said = re.search(r"^error (CDCM-[A-Z-]+): .+\nremedy: .+", loaded.log(), re.M)
    assert said
    assert said[1] in ("CDCM-MIGRATION-GONE", "CDCM-APPLY-CONTROL", "CDCM-STREAM-TOPIC-MISSING")
