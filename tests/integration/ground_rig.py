"""A migration whose ground is taken away while an application writes, and what judges its end.

The judge is md5 over each table's rows as text on either side, by SQL of its own.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from psycopg import sql

from tests.support.live import LiveMigration, one, wait_for

# A key in the order of both servers, one that has no such order, none at all, a type that travels
# beside its events, and unique values that change hands.
SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.item (id bigint PRIMARY KEY, amount int NOT NULL, note text, code text UNIQUE);
CREATE TABLE shop.line (item bigint REFERENCES shop.item ON DELETE CASCADE, n int, note text,
                        PRIMARY KEY (item, n));
CREATE TABLE shop.host (addr inet PRIMARY KEY, note text);
CREATE TABLE shop.span (id int PRIMARY KEY, took interval);
CREATE TABLE shop.log (kind int, note text);
ALTER TABLE shop.log REPLICA IDENTITY FULL;
"""
FILL = """
INSERT INTO shop.item SELECT g, g % 97, repeat(md5(g::text), 40), 'c' || g
    FROM generate_series(1, 3000) g;
INSERT INTO shop.line SELECT g, k, 'line' FROM generate_series(1, 3000) g, generate_series(1, 2) k;
INSERT INTO shop.host SELECT '10.0.0.0'::inet + g, 'host' FROM generate_series(1, 300) g;
INSERT INTO shop.span SELECT g, make_interval(mins => g) FROM generate_series(1, 300) g;
INSERT INTO shop.log SELECT g % 7, 'same' FROM generate_series(1, 300) g;
"""
TABLES = ("item", "line", "host", "span", "log")
WRITES = (
    "UPDATE shop.item SET amount = amount + 1 WHERE id = {a}",
    "INSERT INTO shop.item VALUES ({new}, 1, 'new', 'n{new}') ON CONFLICT DO NOTHING",
    "DELETE FROM shop.item WHERE id = {a}",
    "UPDATE shop.item SET id = {new} WHERE id = {a} "
    "AND NOT EXISTS (SELECT FROM shop.line WHERE item = {a}) "
    "AND NOT EXISTS (SELECT FROM shop.item WHERE id = {new})",
    "INSERT INTO shop.line SELECT id, {new}, 'late' FROM shop.item WHERE id = {a} "
    "ON CONFLICT DO NOTHING",
    "UPDATE shop.host SET note = 'n{new}' WHERE addr = '10.0.0.0'::inet + {b}",
    "UPDATE shop.span SET took = took + make_interval(secs => 1.5) WHERE id = {b}",
    "INSERT INTO shop.log VALUES ({b} % 7, 'same')",
    "DELETE FROM shop.log WHERE ctid = (SELECT min(ctid) FROM shop.log WHERE kind = {b} % 7)",
)
SWAP = """
UPDATE shop.item SET code = NULL WHERE id = {a};
UPDATE shop.item SET code = 'c{a}' WHERE id = {b} AND NOT EXISTS
    (SELECT FROM shop.item WHERE code = 'c{a}');
"""


class Application:
    """Commits small transactions on the source all the time; waits for a server that is away."""

    def __init__(self, dsn: str, seed: int = 1) -> None:
        self.dsn = dsn
        self.commits = 0
        self._random = random.Random(seed)
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Application:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def more(self, count: int = 30) -> None:
        """Wait until so many transactions more are committed."""
        wanted = self.commits + count
        wait_for("the application has written", lambda: self.commits >= wanted, 60)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is written for the length of the block."""
        with self._turn:
            yield

    def _run(self) -> None:
        while not self._stop.is_set():
            with suppress(psycopg.Error), psycopg.connect(self.dsn, connect_timeout=5) as conn:
                while not self._stop.wait(0.004):
                    with self._turn:
                        self._write(conn)
            self._stop.wait(0.05)

    def _write(self, conn: psycopg.Connection) -> None:
        numbers = {
            "a": self._random.randint(1, 3000),
            "b": self._random.randint(1, 300),
            "new": self._random.randint(3001, 9000),
        }
        statements = self._random.sample(WRITES, 2)
        if self._random.random() < 0.2:
            statements = [SWAP]
        for statement in statements:
            conn.execute(statement.format(**numbers))
        conn.commit()
        self.commits += 1


def create(source: str) -> None:
    with psycopg.connect(source, autocommit=True) as conn:
        conn.execute(SCHEMA)
        conn.execute(FILL)
        conn.execute("VACUUM ANALYZE")


def digests(dsn: str) -> dict[str, str]:
    """Of each table: md5 over its rows as text, in an order of their own."""
    with psycopg.connect(dsn) as conn:
        return {
            table: str(
                conn.execute(
                    sql.SQL(
                        "SELECT count(*) || ' ' || md5(coalesce("
                        "string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\"), '')) "
                        "FROM shop.{} AS t"
                    ).format(sql.Identifier(table))
                ).fetchone()
            )
            for table in TABLES
        }


def lost(live: LiveMigration) -> list[str]:
    """The codes of what `status` calls lost."""
    ground = live.status()["ground"] or {"lost": []}
    return [loss["code"] for loss in ground["lost"]]


def told(live: LiveMigration, code: str) -> bool:
    """Whether the running service has written this loss into the journal."""
    return bool(
        one(
            live.target,
            "SELECT count(*) FROM cdc_migrator.journal WHERE action = 'ground-lost' "
            "AND details ->> 'code' = %s",
            code,
        )
    )


def generation(live: LiveMigration) -> int:
    return int(one(live.target, "SELECT generation FROM cdc_migrator.migration"))


def names(live: LiveMigration) -> tuple[str, str, str]:
    """Slot, connector and topic of the present generation."""
    number = generation(live)
    return (
        f"cdcm_{live.name}_{number}",
        f"cdcm-{live.name}-{number}",
        f"cdcm.{live.name}.{number}.stream",
    )


@contextmanager
def running(live: LiveMigration) -> Iterator[Any]:
    """`run`, applying, for the length of the block."""
    process = live.start("run")
    try:
        wait_for("the stream is applied", live.working, 60)
        yield process
    finally:
        if process.poll() is None:
            live.stop(process)


def follows(live: LiveMigration, application: Application) -> None:
    """What is written is applied, and both sides hold the same rows."""
    application.more()
    with application.paused():
        assert live.drain()
        assert digests(live.target) == digests(live.source)


def drop_slot(live: LiveMigration) -> None:
    """As somebody would who cleans up: also from under the connector."""
    slot, _, _ = names(live)

    def dropped() -> bool:
        with psycopg.connect(live.source, autocommit=True) as conn:
            conn.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
                "WHERE slot_name = %s AND active",
                (slot,),
            )
            with suppress(psycopg.errors.ObjectInUse):
                conn.execute(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
                    "WHERE slot_name = %s",
                    (slot,),
                )
                return True
        return False

    wait_for("the slot is dropped", dropped, 30)


def end_offset(live: LiveMigration) -> int:
    from confluent_kafka import Consumer

    consumer = Consumer(
        {"bootstrap.servers": live.stack.bootstrap_servers, "group.id": "ground-test"}
    )
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(names(live)[2], 0), 10)[1])
    finally:
        consumer.close()


def delete_records(live: LiveMigration) -> None:
    """What retention does when it overtakes a reader that is away."""
    admin = AdminClient({"bootstrap.servers": live.stack.bootstrap_servers})
    up_to = TopicPartition(names(live)[2], 0, end_offset(live))
    for future in admin.delete_records([up_to]).values():
        future.result(20)


def remake_topic(live: LiveMigration, records: int) -> None:
    """Delete the topic and make one of its name with at least so many records in it."""
    from confluent_kafka import Producer
    from confluent_kafka.admin import NewTopic

    topic = names(live)[2]
    admin = AdminClient({"bootstrap.servers": live.stack.bootstrap_servers})
    for future in admin.delete_topics([topic]).values():
        future.result(20)
    wait_for("the topic is gone", lambda: topic not in admin.list_topics(timeout=10).topics)

    def made() -> bool:
        with suppress(Exception):
            config = {"retention.ms": "-1", "retention.bytes": "-1"}
            for future in admin.create_topics([NewTopic(topic, 1, 1, config=config)]).values():
                future.result(20)
        return topic in admin.list_topics(timeout=10).topics

    wait_for("the topic is made again", made)
    producer = Producer({"bootstrap.servers": live.stack.bootstrap_servers})
    for _ in range(records):
        producer.produce(topic, b"{}")
        producer.poll(0)
    producer.flush(20)


def until_lost(live: LiveMigration, code: str, seconds: float = 20) -> None:
    """`status` names it within some seconds."""
    wait_for(f"status tells {code}", lambda: code in lost(live), seconds, 0.2)
