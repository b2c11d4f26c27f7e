"""What a user can get wrong, met at the console: a code, a cause, a remedy, and nothing lost."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml
from confluent_kafka import Producer
from psycopg import sql

from cdc_migrator.stack.local import StackInfo
from tests.support.live import LiveMigration, one, wait_for
from tests.support.private_postgres import private_database
from tests.support.stack import fresh_database
from tests.support.typed import CLI, typed

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

SHOP = """
CREATE SCHEMA shop;
CREATE TABLE shop.item (id int PRIMARY KEY, note text);
CREATE TABLE shop.extra (id int PRIMARY KEY);
INSERT INTO shop.item SELECT g, 'loaded' FROM generate_series(1, 50) g;
"""
SECRET = "hunter2-never-shown"

Done = subprocess.CompletedProcess[str]


class Shop(LiveMigration):
    """A small shop and its migration; `ask` runs a verb with parts of the settings changed."""

    def ask(self, verb: str, *flags: str, **settings: Any) -> Done:
        """The verb under the file's settings with `settings` in the place of theirs."""
        document = yaml.safe_load(self.config.read_text()) | settings
        label = re.sub(r"\W+", "-", f"{verb} {flags} {settings}")[-120:]
        file = self.directory / f"{label}.yaml"
        file.write_text(yaml.safe_dump(document))
        return typed("--config", str(file), *verb.split(), *flags)

    def ask_both(self, verb: str, **settings: Any) -> tuple[Done, Done]:
        """For people and with ``-o json``, at the same time."""
        with ThreadPoolExecutor(2) as pool:
            forms = [pool.submit(self.ask, verb, *form, **settings) for form in ((), ("-ojson",))]
            return forms[0].result(), forms[1].result()

    def rows(self, dsn: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(dsn) as conn:
            return conn.execute("SELECT * FROM shop.item ORDER BY id").fetchall()

    def insert(self, *ids: int) -> None:
        """Each in a transaction of its own."""
        with psycopg.connect(self.source, autocommit=True) as conn:
            for number in ids:
                conn.execute("INSERT INTO shop.item VALUES (%s, 'streamed')", (number,))

    def goes_on(self) -> None:
        """An ordinary `run` applies everything that was written until now."""
        run = self.start("run")
        assert self.drain(unless_halted=False)
        assert self.stop(run) == 0
        assert self.rows(self.target) == self.rows(self.source)

    def traces(self) -> list[str]:
        """What a migration has left on the two servers."""
        found = []
        for dsn in (self.source, self.target):
            with psycopg.connect(dsn) as conn:
                for query in (
                    "SELECT slot_name::text FROM pg_replication_slots "
                    "WHERE database = current_database()",
                    "SELECT pubname::text FROM pg_publication",
                    "SELECT nspname::text FROM pg_namespace WHERE nspname = 'cdc_migrator'",
                ):
                    found += [row[0] for row in conn.execute(query)]
        return found


@pytest.fixture
def shop(stack: StackInfo, source_db: str, target_db: str, tmp_path: Path) -> Shop:
    """Nothing was started yet."""
    with psycopg.connect(source_db, autocommit=True) as conn:
        conn.execute(SHOP)
    return Shop(tmp_path, "faulty", source_db, target_db, stack)


@pytest.fixture(scope="module")
def loaded(stack: StackInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One that is loaded and waits for `run`; each test leaves it able to go on."""
    with ExitStack() as cleanup:
        source = cleanup.enter_context(fresh_database(stack.source_dsn))
        target = cleanup.enter_context(fresh_database(stack.target_dsn))
        with psycopg.connect(source, autocommit=True) as conn:
            conn.execute(SHOP)
        made = Shop(tmp_path_factory.mktemp("loaded"), "astray", source, target, stack)
        cleanup.callback(made.close)
        made.prepare()
        yield made


@pytest.fixture
def nowhere() -> Iterator[int]:
    """A port of this machine on which nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


def told(done: Done, code: str, exit_code: int, *words: str) -> None:
    """The failure is told to people: code, cause with these words, remedy; no secret, no trace."""
    assert done.returncode == exit_code, done.stderr
    found = re.search(r"^error (CDCM-[A-Z-]+): (.+?)\nremedy: (.+)", done.stderr, re.M | re.S)
    assert found, done.stderr
    assert found[1] == code
    for word in words:
        assert word in found[2] + found[3], found[0]
    _discreet(done)


def told_json(done: Done, code: str, exit_code: int, *words: str) -> None:
    """The same to programs: one document on stderr, nothing but log lines on stdout."""
    assert done.returncode == exit_code, done.stderr
    document = json.loads(done.stderr.splitlines()[-1])
    assert document["schema_version"] == 1
    error = document["error"]
    assert set(error) == {"code", "cause", "remedy"}
    assert error["code"] == code
    assert error["remedy"]
    for word in words:
        assert word in error["cause"] + error["remedy"], error
    _discreet(done)


def _discreet(done: Done) -> None:
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def findings(done: Done) -> dict[str, dict[str, str]]:
    """What `check -o json` found, by what it is about."""
    document = json.loads(done.stdout)
    assert document["refused"] is True
    for finding in document["findings"]:
        assert finding["cause"], finding
        assert finding["remedy"], finding
    return {finding["object"]: finding for finding in document["findings"]}


def wrong_password(made: Shop, side: str) -> dict[str, Any]:
    return {side: {"dsn": with_password(getattr(made, side), SECRET)}}


def with_password(dsn: str, password: str) -> str:
    parts = urlsplit(dsn)
    place = f"{parts.username}:{password}@{parts.hostname}:{parts.port}"
    return parts._replace(netloc=place).geturl()


def test_a_part_that_does_not_answer_is_named_whatever_the_verb(
    shop: Shop, loaded: Shop, nowhere: int
) -> None:
    """`check` names all of them at once, `migrate` begins nothing, `run` goes on later.

    Trying again may help, so the exit code is 1.
    """
    dead = {"dsn": f"postgresql://app:{SECRET}@127.0.0.1:{nowhere}/shop"}
    away = {
        "source": dead,
        "target": dict(dead),
        "connect": {"url": f"http://127.0.0.1:{nowhere}", "secrets_dir": "/nowhere"},
        "kafka": {"bootstrap_servers": f"127.0.0.1:{nowhere}"},
    }
    codes = {
        "source": "CDCM-DB-UNREACHABLE",
        "target": "CDCM-DB-UNREACHABLE",
        "connect": "CDCM-CONNECT-UNREACHABLE",
        "kafka": "CDCM-KAFKA-UNREACHABLE",
    }
    loaded.insert(101)
    with ThreadPoolExecutor(5) as pool:  # Kafka's absence takes ten seconds to be believed
        kafka = pool.submit(loaded.ask, "run", kafka=away["kafka"])
        migrate = {
            part: pool.submit(shop.ask, "migrate", **{part: away[part]})
            for part in ("kafka", "source", "target", "connect")
        }
        check, check_json = (pool.submit(shop.ask, "check", *f, **away) for f in ((), ("-ojson",)))
        run = pool.submit(loaded.ask, "run", "--json", target=dead)

    for one_form in (check.result(), check_json.result()):
        assert one_form.returncode == 1, one_form.stderr
        _discreet(one_form)
    assert {p: found["code"] for p, found in findings(check_json.result()).items()} == codes
    for part, code in codes.items():
        assert f"{code}  {part}" in check.result().stdout
        told(migrate[part].result(), code, 1, f"127.0.0.1:{nowhere}")
    assert shop.traces() == []

    told_json(run.result(), "CDCM-DB-UNREACHABLE", 1, f"the target at 127.0.0.1:{nowhere}/")
    told(kafka.result(), "CDCM-KAFKA-UNREACHABLE", 1, f"127.0.0.1:{nowhere}")
    error = loaded.halted()
    assert error is not None
    assert error["code"] == "CDCM-KAFKA-UNREACHABLE"
    loaded.goes_on()
    assert loaded.halted() is None, "an error that is over is forgotten"


def test_what_is_in_the_stream_is_applied_while_the_source_is_away(
    loaded: Shop, nowhere: int
) -> None:
    """What its tables are was noted. That nobody answers there is said; the password is not."""
    loaded.insert(103)
    dead = f"postgresql://app:{SECRET}@127.0.0.1:{nowhere}/shop"
    run = loaded.start("run", log="away.log", env={"CDC_MIGRATOR_SOURCE__DSN": dead})
    said = loaded.directory / "away.log"
    wait_for("the source is missed", lambda: "CDCM-DB-UNREACHABLE" in said.read_text())
    wait_for("the row", lambda: (103, "streamed") in loaded.rows(loaded.target))
    assert loaded.stop(run) == 0
    assert SECRET not in said.read_text()


def test_a_target_that_goes_away_for_a_while_is_waited_for(loaded: Shop) -> None:
    """The same `run` applies what was written meanwhile, each once."""
    name = urlsplit(loaded.target).path.lstrip("/")
    database = sql.Identifier(name)
    before = loaded.progress()["applied_at"]
    run = loaded.start("run")
    wait_for("this one applies", lambda: loaded.progress()["applied_at"] != before, 30)
    with psycopg.connect(loaded.stack.target_dsn, autocommit=True) as server:
        server.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(database))
        server.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
            (name,),
        )
        loaded.insert(111, 112)
        wait_for("run notices", lambda: '"alive-not-said"' in loaded.log())
        assert run.poll() is None
        server.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(database))
    assert loaded.drain()
    assert loaded.stop(run) == 0
    assert loaded.rows(loaded.target) == loaded.rows(loaded.source)
    assert loaded.halted() is None


def test_a_wrong_password_is_refused_with_the_side_that_it_is_for(shop: Shop, loaded: Shop) -> None:
    """Whatever the verb; exit code 3, as trying again is useless. The password is not told."""
    with ThreadPoolExecutor(3) as pool:
        check, migrate, run = (
            {
                side: pool.submit(made.ask, verb, *flags, **wrong_password(made, side))
                for side in ("source", "target")
            }
            for made, verb, *flags in (
                (shop, "check", "-ojson"),
                (shop, "migrate"),
                (loaded, "run", "-ojson"),
            )
        )

    for side in ("source", "target"):
        checked = check[side].result()
        assert checked.returncode == 3
        assert findings(checked)[side]["code"] == "CDCM-DB-PASSWORD"
        _discreet(checked)
        told(migrate[side].result(), "CDCM-DB-PASSWORD", 3, f"the {side} at", "pg_hba.conf")
        told_json(run[side].result(), "CDCM-DB-PASSWORD", 3, f"the {side} at", "pg_hba.conf")
    assert shop.traces() == []


def test_init_with_a_wrong_password_writes_no_file(shop: Shop, tmp_path: Path) -> None:
    """The password of the command line is not repeated."""
    source = with_password(shop.source, SECRET)
    place = tmp_path / "new"
    place.mkdir()
    done = subprocess.run(
        [*CLI, "init", "--source", source, "--target", shop.target],
        cwd=place, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    told(done, "CDCM-DB-PASSWORD", 3, "the source at")
    assert list(place.iterdir()) == []


def test_a_database_that_is_not_there_is_named(shop: Shop) -> None:
    """As in a connection string with a typing error."""
    dsn = urlsplit(shop.source)._replace(path="/shpo").geturl()

    told(shop.ask("migrate", source={"dsn": dsn}), "CDCM-DB-MISSING", 3, "/shpo")


def test_an_unknown_key_names_its_line_and_the_nearest_known_one(shop: Shop) -> None:
    """Whatever the verb, before anything is connected to: exit code 2."""
    verbs = ("migrate", "run", "abort --yes")
    wrong = {"aply": {"max_batch_rows": 5}}
    with ThreadPoolExecutor(3) as pool:
        people = list(pool.map(lambda verb: shop.ask(verb, **wrong), verbs))
        programs = shop.ask("check", "-ojson", **wrong)

    for done in people:
        told(done, "CDCM-CONFIG-UNKNOWN-KEY", 2, "did you mean apply?", "config schema")
        assert re.search(r"\.yaml:1: aply", done.stderr)
        assert done.stdout == ""
    told_json(programs, "CDCM-CONFIG-UNKNOWN-KEY", 2, "did you mean apply?", "config schema")


def test_a_table_that_is_not_there_is_told_with_the_nearest_name(shop: Shop) -> None:
    """A pattern that matches nothing stops the migration before it begins."""
    wrong = {"tables": {"include": ["shop.itme", "shop.extra"]}}
    with ThreadPoolExecutor(2) as pool:
        checked = pool.submit(shop.ask, "check", "--json", **wrong)
        both = pool.submit(shop.ask_both, "migrate", **wrong)
        check, (people, programs) = checked.result(), both.result()

    assert check.returncode == 3
    finding = findings(check)["shop.itme"]
    assert finding["code"] == "CDCM-TABLES-MISSING"
    assert "shop.item" in finding["remedy"]
    told(people, "CDCM-TABLES-MISSING", 3, "'shop.itme'", "Did you mean shop.item")
    told_json(programs, "CDCM-TABLES-MISSING", 3, "'shop.itme'", "Did you mean shop.item")
    assert shop.traces() == []


def test_a_source_without_logical_log_is_refused_with_the_statement_that_helps(
    shop: Shop,
) -> None:
    """By `check` and by `migrate`; `init` looks at it and says so in its file."""
    with private_database() as source, psycopg.connect(source, autocommit=True) as conn:
        conn.execute(SHOP)
        with ThreadPoolExecutor(2) as pool:
            checked = pool.submit(shop.ask, "check", "-ojson", source={"dsn": source})
            both = pool.submit(shop.ask_both, "migrate", source={"dsn": source})
            check, (people, programs) = checked.result(), both.result()
        shop.cli("init", "--source", source, "--target", shop.target, "--file",
                 str(shop.directory / "new.yaml"))  # fmt: skip

        assert check.returncode == 3
        against = [f["code"] for f in findings(check).values() if f["severity"] == "refuse"]
        assert against == ["CDCM-SOURCE-WAL-LEVEL"]
        told(people, "CDCM-SOURCE-WAL-LEVEL", 3, "wal_level is replica",
             "ALTER SYSTEM SET wal_level = 'logical'", "restart")  # fmt: skip
        told_json(programs, "CDCM-SOURCE-WAL-LEVEL", 3, "ALTER SYSTEM SET wal_level = 'logical'")
        assert "wal_level replica" in (shop.directory / "new.yaml").read_text()
        assert one(source, "SELECT to_regnamespace('cdc_migrator')") is None
    assert shop.traces() == []


def produce_by_hand(shop: Shop, value: bytes) -> int:
    """Write one record into the stream's topic as anybody could; returns its offset."""
    placed: list[int | None] = []
    producer = Producer({"bootstrap.servers": shop.stack.bootstrap_servers})
    producer.produce(
        shop.topic, value, on_delivery=lambda _, record: placed.append(record.offset())
    )
    assert producer.flush(20) == 0
    (offset,) = placed
    assert offset is not None
    return offset


def test_garbage_in_the_topic_halts_the_stream_at_exactly_that_place(shop: Shop) -> None:
    """All before it is applied, nothing behind it; again and again; `abort` is the way out."""
    try:
        shop.prepare()
        run = shop.start("run")
        shop.insert(1001, 1002)
        assert shop.drain()
        offset = produce_by_hand(shop, f"{SECRET}: not an event".encode())
        shop.insert(1003, 1004)

        assert run.wait(30) == 3
        place = f"{shop.topic}[0]@{offset}"
        before = [*((n, "loaded") for n in range(1, 51)), (1001, "streamed"), (1002, "streamed")]
        assert shop.rows(shop.target) == before
        stood = shop.progress()
        assert stood["next_offset"] <= offset
        error = shop.halted()
        assert error is not None
        assert (error["code"], error["position"]) == ("CDCM-STREAM-UNDECODABLE", place)

        people, programs = shop.ask_both("run")
        told(people, "CDCM-STREAM-UNDECODABLE", 3, place, "Nothing past this position was applied",
             "cdc-migrator abort", "empty the target's tables")  # fmt: skip
        told_json(programs, "CDCM-STREAM-UNDECODABLE", 3, place, "cdc-migrator abort")
        again = shop.progress()
        assert shop.rows(shop.target) == before
        assert again["commit_position"] == stood["commit_position"]
        assert again["next_offset"] == stood["next_offset"]
        assert SECRET not in shop.log() + json.dumps(error)

        left = shop.cli("abort", "--yes").stderr
        assert "empty or drop those tables" in left
        assert shop.traces() == []
        with psycopg.connect(shop.target, autocommit=True) as conn:
            conn.execute("TRUNCATE shop.item")
        shop.prepare()
        assert shop.rows(shop.target) == shop.rows(shop.source)
        assert len(shop.rows(shop.target)) == 54
    finally:
        shop.close()


def test_a_forged_change_without_its_transaction_is_not_applied(loaded: Shop) -> None:
    """A record that looks like an event, written by hand, halts the stream as well.

    The stream cannot go on behind it: this test stands last.
    """
    run = loaded.start("run")
    wait_for("the stream runs", loaded.working, 30)
    forged = {
        "op": "c",
        "before": None,
        "after": {"id": 666, "note": SECRET},
        "source": {"schema": "shop", "table": "item", "lsn": 1, "ts_ms": 1, "ts_us": 1},
        "transaction": {"id": "1:1", "total_order": 1},
    }
    offset = produce_by_hand(loaded, json.dumps(forged).encode())

    assert run.wait(30) == 3
    error = loaded.halted()
    assert error is not None
    assert error["code"] == "CDCM-STREAM-UNOPENED"
    assert f"{loaded.topic}[0]@{offset}" in error["position"]
    assert one(loaded.target, "SELECT count(*) FROM shop.item WHERE id = 666") == 0
    assert SECRET not in loaded.log()
