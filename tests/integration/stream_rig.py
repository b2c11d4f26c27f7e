"""A connector of its own for one test: database, publication, slot, topic; all removed at the end.

The settings are the product's; they are repeated here so that the stream is tested against what
it was written for, also when somebody changes the template.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from psycopg import sql

PLACEHOLDER = "__cdcm_6f1d2c3b4a5968778695"

MARKER_TABLES = """
CREATE SCHEMA cdc_migrator;
CREATE TABLE cdc_migrator.heartbeat (id int PRIMARY KEY, beat_at timestamptz NOT NULL);
INSERT INTO cdc_migrator.heartbeat VALUES (1, now());
"""


def wait_for(what: str, ready: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Whatever `ready` returns once it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = ready()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:g} s: {what}")


@dataclass
class Rig:
    """A running connector; `topic` is its one ordered topic."""

    name: str
    dsn: str
    bootstrap_servers: str
    connect_url: str
    settings: dict[str, str]

    @property
    def prefix(self) -> str:
        return f"cdcm.{self.name}.1"

    @property
    def topic(self) -> str:
        return f"{self.prefix}.stream"

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.dsn, autocommit=True)

    def execute(self, *statements: str) -> None:
        """Each statement in a transaction of its own."""
        with self.connect() as conn:
            for statement in statements:
                conn.execute(statement)

    def kill_walsender(self) -> bool:
        """End the connector's replication connection; whether there was one."""
        with self.connect() as conn:
            row = conn.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
                "WHERE slot_name = %s AND active_pid IS NOT NULL",
                (self.name,),
            ).fetchone()
        return row is not None

    def position(self) -> int:
        """The source's current write position."""
        with self.connect() as conn:
            row = conn.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()
        assert row is not None
        return int(row[0])

    def start(self) -> None:
        url = f"{self.connect_url}/connectors/{self.name}"
        httpx.put(f"{url}/config", json=self.settings, timeout=30).raise_for_status()

        def running() -> bool:
            answer = httpx.get(f"{url}/status", timeout=30)
            if answer.status_code != 200:
                return False
            tasks = answer.json()["tasks"]
            failed = [task["trace"] for task in tasks if task["state"] == "FAILED"]
            assert not failed, failed[0]
            return bool(tasks) and tasks[0]["state"] == "RUNNING" and self._slot_active()

        wait_for("connector running", running)

    def _slot_active(self) -> bool:
        with self.connect() as conn:
            row = conn.execute(
                "SELECT active FROM pg_replication_slots WHERE slot_name = %s", (self.name,)
            ).fetchone()
        return row is not None and bool(row[0])

    def messages(self, until: Callable[[Message], bool], seconds: float = 20.0) -> list[Message]:
        """All records of the topic up to and with the first for which `until` is true."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "group.id": f"look-{uuid.uuid4()}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
            }
        )
        found: list[Message] = []
        try:
            consumer.assign([TopicPartition(self.topic, 0, 0)])
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                for message in consumer.consume(500, 0.05):
                    if message.error() is not None:
                        assert message.error().code() == KafkaError._PARTITION_EOF
                        continue
                    found.append(message)
                    if until(message):
                        return found
        finally:
            consumer.close()
        raise AssertionError(f"not within {seconds:g} s; {len(found)} records came")


def connector_settings(
    name: str, database: str, admin: dict[str, Any], secret: Path
) -> dict[str, str]:
    prefix = f"cdcm.{name}.1"
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "1",
        "database.hostname": str(admin["host"]),
        "database.port": str(admin["port"]),
        "database.user": str(admin["user"]),
        "database.password": f"${{file:{secret}:password}}",
        "database.dbname": database,
        "topic.prefix": prefix,
        "plugin.name": "pgoutput",
        "slot.name": name,
        "publication.name": name,
        "publication.autocreate.mode": "disabled",
        "snapshot.mode": "no_data",
        "exactly.once.support": "required",
        "transaction.boundary": "poll",
        "provide.transaction.metadata": "true",
        "extended.headers.enabled": "false",
        "message.prefix.exclude.list": ".*",
        "tombstones.on.delete": "false",
        "skipped.operations": "none",
        "event.converting.failure.handling.mode": "fail",
        "include.unknown.datatypes": "true",
        "decimal.handling.mode": "string",
        "time.precision.mode": "isostring",
        "interval.handling.mode": "string",
        "binary.handling.mode": "bytes",
        "hstore.handling.mode": "json",
        "unavailable.value.placeholder": PLACEHOLDER,
        "key.converter": "org.apache.kafka.connect.json.JsonConverter",
        "key.converter.schemas.enable": "false",
        "key.converter.replace.null.with.default": "false",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "false",
        "value.converter.replace.null.with.default": "false",
        "poll.interval.ms": "10",
        "max.batch.size": "2048",
        "max.queue.size": "8192",
        "max.queue.size.in.bytes": "50000000",
        "heartbeat.interval.ms": "1000",
        "heartbeat.action.query": "UPDATE cdc_migrator.heartbeat SET beat_at = now()",
        "retriable.restart.connector.wait.ms": "1000",
        "transforms": "one",
        "transforms.one.type": "org.apache.kafka.connect.transforms.RegexRouter",
        "transforms.one.regex": prefix.replace(".", "\\.") + "\\.(?!stream$).*",
        "transforms.one.replacement": f"{prefix}.stream",
        "topic.creation.default.replication.factor": "1",
        "topic.creation.default.partitions": "1",
        "producer.override.compression.type": "lz4",
        "producer.override.linger.ms": "1",
    }


@contextlib.contextmanager
def own_stream(
    source_dsn: str, bootstrap_servers: str, connect_url: str, secrets: Path, schema: str
) -> Iterator[Rig]:
    """A database with `schema` (statements) and a connector that captures all of it."""
    name = f"stream_{uuid.uuid4().hex[:10]}"
    admin = psycopg.conninfo.conninfo_to_dict(source_dsn)
    dsn = psycopg.conninfo.make_conninfo(source_dsn, dbname=name)
    secret = secrets / f"{name}.properties"
    rig = Rig(
        name, dsn, bootstrap_servers, connect_url, connector_settings(name, name, admin, secret)
    )
    kafka = AdminClient({"bootstrap.servers": bootstrap_servers})
    with psycopg.connect(source_dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            with rig.connect() as own:
                own.execute(MARKER_TABLES)
                own.execute(schema)
                own.execute(
                    sql.SQL("CREATE PUBLICATION {} FOR ALL TABLES").format(sql.Identifier(name))
                )
                own.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))
            secret.write_text(f"password={admin['password']}\n")
            topics = [rig.topic, f"__debezium-heartbeat.{rig.prefix}"]
            for created in kafka.create_topics([NewTopic(t, 1, 1) for t in topics]).values():
                created.result()
            rig.start()
            yield rig
        finally:
            _remove(rig, conn, kafka)
            secret.unlink(missing_ok=True)


def _remove(rig: Rig, conn: psycopg.Connection, kafka: AdminClient) -> None:
    url = f"{rig.connect_url}/connectors/{rig.name}"
    if httpx.get(url, timeout=30).status_code == 200:
        httpx.put(f"{url}/stop", timeout=30).raise_for_status()

        def stopped() -> bool:
            status = httpx.get(f"{url}/status", timeout=30).json()
            return status["connector"]["state"] == "STOPPED" and not status["tasks"]

        wait_for("connector stopped", stopped)
        wait_for(
            "offsets forgotten",
            lambda: httpx.delete(f"{url}/offsets", timeout=30).status_code == 200,
        )
        httpx.delete(url, timeout=30).raise_for_status()

    def slot_gone() -> bool:
        with contextlib.suppress(psycopg.errors.ObjectInUse):
            conn.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
                "WHERE slot_name = %s",
                (rig.name,),
            )
            return True
        return False

    wait_for("slot dropped", slot_gone)
    conn.execute(
        sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(rig.name))
    )
    existing = kafka.list_topics(timeout=10).topics
    ours = [topic for topic in existing if topic.endswith(rig.prefix) or rig.prefix + "." in topic]
    for deleted in kafka.delete_topics(ours).values() if ours else ():
        deleted.result()


def decoded(message: Message) -> dict[str, Any]:
    value = message.value()
    assert value is not None
    found: dict[str, Any] = json.loads(value)
    return found
