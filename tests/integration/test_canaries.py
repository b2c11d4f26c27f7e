"""A password, a row's value or a DSN's secret appears nowhere but where it belongs.

Canaries are planted as passwords, as values and in keys of rows; a migration runs, is compared and
halts at such a row; then everything that it has said, written down, served or handed to Connect is
searched.
"""

from __future__ import annotations

import io
import json
import secrets
import socket
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition
from psycopg import sql

from cdc_migrator.stack.local import StackInfo
from tests.support.fenced import let_in
from tests.support.live import LiveMigration, wait_for
from tests.support.stack import fresh_database

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

# Each has characters that files and URLs spell in ways of their own.
PASSWORD = "pw'cAnary &" + secrets.token_hex(6)
WRONG = "wrong cAnary#" + secrets.token_hex(6)
VALUE = "value \"cAnary'" + secrets.token_hex(6)
KEY = "key-cAnary-" + secrets.token_hex(6)
HARMFUL = "refused-cAnary-" + secrets.token_hex(6)
MARK = "cAnary"

SHOP = """
CREATE SCHEMA shop;
CREATE TABLE shop.item (id int PRIMARY KEY, note text);
CREATE TABLE shop.named (name text PRIMARY KEY, n int);
"""


class Search:
    """Texts by where they were found, and the canaries in them."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def add(self, where: str, text: str | bytes) -> None:
        told = text.decode(errors="replace") if isinstance(text, bytes) else text
        self.texts[where] = self.texts.get(where, "") + told

    def found(self) -> list[str]:
        """Where one is, with what stands around it."""
        told = []
        for where, text in self.texts.items():
            at = text.find(MARK)
            if at >= 0:
                told.append(f"{where}: …{text[max(0, at - 80) : at + 40]}…")
        return told


class Watch(threading.Thread):
    """Looks at the command line of every process of the machine, again and again."""

    def __init__(self, search: Search) -> None:
        super().__init__(daemon=True)
        self._search = search
        self._over = threading.Event()
        self.looks = 0

    def run(self) -> None:
        while not self._over.wait(0.1):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):  # it has ended
                    line = file.read_bytes()
                    if MARK.encode() in line:
                        self._search.add("a process's command line", line)
            self.looks += 1

    def end(self) -> None:
        self._over.set()
        self.join()


@pytest.fixture
def role(stack: StackInfo) -> Iterator[str]:
    """A role of both servers whose password is a canary."""
    name = f"canary_{secrets.token_hex(4)}"
    for dsn in (stack.source_dsn, stack.target_dsn):
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(
                sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}").format(
                    sql.Identifier(name), sql.Literal(PASSWORD)
                )
            )
    yield name
    for dsn in (stack.source_dsn, stack.target_dsn):
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def as_role(dsn: str, role: str, password: str | None = PASSWORD) -> str:
    """The connection string with another user, and a password or none."""
    parts = urlsplit(dsn)
    user = role if password is None else f"{role}:{quote(password, safe='')}"
    return parts._replace(netloc=f"{user}@{parts.hostname}:{parts.port}").geturl()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def written(dsn: str) -> str:
    """Every row of the control schema, as text."""
    told = []
    with psycopg.connect(dsn, autocommit=True) as conn:
        tables = conn.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' "
            "AND relnamespace = 'cdc_migrator'::regnamespace"
        ).fetchall()
        for (table,) in tables:
            query = sql.SQL("SELECT t::text FROM cdc_migrator.{} t").format(sql.Identifier(table))
            told += [f"{table}: {row}" for (row,) in conn.execute(query)]
    return "\n".join(told)


def records(stack: StackInfo, topic: str) -> str:
    """What the topic holds: the rows belong there."""
    consumer = Consumer(
        {"bootstrap.servers": stack.bootstrap_servers, "group.id": "canaries",
         "auto.offset.reset": "earliest", "enable.auto.commit": False}
    )  # fmt: skip
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        told = [m.value() or b"" for m in consumer.consume(200, timeout=5.0)]
        return b"\n".join(told).decode()
    finally:
        consumer.close()


def unpacked(path: Path) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as tar:
        return {
            member.name.partition("/")[2]: tar.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in tar.getmembers()
        }


@pytest.mark.usefixtures("local_stack")
def test_no_password_and_no_value_gets_out(stack: StackInfo, role: str, tmp_path: Path) -> None:
    """Through a whole life: check, migrate, stream, compare, repair, halt, diagnose, abort."""
    search = Search()
    watch = Watch(search)
    watch.start()
    port = free_port()
    password_file, wrong_file = tmp_path / "password", tmp_path / "wrong"
    for file, text in ((password_file, PASSWORD), (wrong_file, WRONG)):
        file.write_text(text)
        file.chmod(0o600)
    with fresh_database(stack.source_dsn) as source, fresh_database(stack.target_dsn) as target:
        with psycopg.connect(source, autocommit=True) as conn:
            conn.execute(SHOP)
            conn.execute("INSERT INTO shop.item VALUES (1, %s), (2, %s)", (VALUE, VALUE))
            conn.execute("INSERT INTO shop.named VALUES (%s, 1)", (KEY,))
        migration = LiveMigration(
            tmp_path / "m", f"canary_{secrets.token_hex(3)}", as_role(source, role),
            as_role(target, role), stack,
            {
                "target": {
                    "dsn": as_role(target, role, None), "password_file": str(password_file)
                },
                "service": {"http_port": port, "takeover_after": "4s"},
            },
            from_outside=True,
        )  # fmt: skip

        def cli(*arguments: str, check: int | None = 0) -> str:
            done = migration.cli(*arguments, check=check)
            search.add(f"`{' '.join(arguments)}`", done.stdout + done.stderr)
            return done.stdout

        def served() -> None:
            for path in ("metrics", "livez", "readyz?verbose", "healthz"):
                search.add(path, httpx.get(f"http://127.0.0.1:{port}/{path}", timeout=10).text)

        try:
            cli("config", "show", "-o", "yaml")
            cli("--set", f"source.password_file={wrong_file}", "-v", "check", check=3)
            cli("check", "-v")
            process = migration.start("-v", "migrate")
            wait_for("the service streams", lambda: "stream-claimed" in migration.log(), 90)
            assert process.poll() is None
            with psycopg.connect(source, autocommit=True) as conn:
                conn.execute("UPDATE shop.item SET note = note || note")
                conn.execute("UPDATE shop.named SET name = name || '-more'")
            assert migration.drain()
            with let_in(target) as conn:
                conn.execute("UPDATE shop.item SET note = 'cAnary of the target' WHERE id = 1")
            cli("reconcile", "--repair", check=None)
            cli("reconcile", "history")
            for verb in ("status", "readiness", "capture status", "journal show", "report"):
                cli(*verb.split(), "-o", "json", check=None)
            served()

            # Now a row that the target refuses, whose server tells all of it in its message.
            with psycopg.connect(target, autocommit=True) as conn:
                conn.execute("ALTER TABLE shop.named ADD CHECK (name NOT LIKE 'refused%%')")
            with psycopg.connect(source, autocommit=True) as conn:
                conn.execute("INSERT INTO shop.named VALUES (%s, 2)", (HARMFUL,))
            assert wait_for("the stream halts", lambda: process.poll() is not None, 60)
            assert process.returncode == 3
            halted = migration.halted()
            assert halted is not None
            search.add("the error that halted it", json.dumps(halted))
            cli("run", check=3)
            cli("status", "-o", "json")

            bundle = tmp_path / "bundle.tar.gz"
            told = json.loads(
                cli("diagnose", "--to", str(bundle), "--log", str(migration.directory / "run.log"),
                    "-o", "json")
            )  # fmt: skip
            assert bundle.stat().st_mode & 0o077 == 0
            texts = unpacked(bundle)
            assert {part["name"] for part in told["parts"]} == set(texts)
            # The service has ended: all but its metrics is there.
            assert [one["name"] for one in told["missing"]] == ["metrics.txt"]
            assert json.loads(texts["status.json"])["migration"] == migration.name
            assert "item" in {t["relname"] for t in json.loads(texts["source.json"])["tables"]}
            assert "stream-claimed" in texts["logs/run.log"]
            for name, text in texts.items():
                search.add(f"the bundle's {name}", text)

            search.add("the service's log", migration.log())
            search.add("the target's control schema", written(target))
            search.add("the source's control schema", written(source))
            search.add("what Connect holds", connector(stack, migration.name))
            for name in ("kafka", "connect", "supervisor"):
                log = stack.state_dir / "logs" / f"{name}.log"
                search.add(f"the log of {name}", log.read_bytes())
            for path in (migration.directory / "state").rglob("*"):
                if path.is_file():
                    search.add(f"the state's {path.name}", path.read_bytes())
            raw = records(stack, migration.topic)
        finally:
            migration.close()
    watch.end()
    assert watch.looks > 20
    assert search.found() == []
    # What is searched for would be found: it is where it belongs.
    assert VALUE.replace('"', '\\"') in raw
    assert KEY in raw
    control = Search()
    control.add("a topic", raw)
    assert control.found()


def connector(stack: StackInfo, name: str) -> str:
    """All that Connect tells of this migration's connectors."""
    told: list[Any] = []
    for one in httpx.get(f"{stack.connect_url}/connectors").json():
        if name in one:
            for part in ("", "/status", "/tasks", "/config", "/offsets"):
                told.append(httpx.get(f"{stack.connect_url}/connectors/{one}{part}").json())
    assert told
    return json.dumps(told)
