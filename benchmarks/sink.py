"""Debezium's JDBC sink as a peer: its source connector, and its sink connectors, at their best.

The rows travel flat (`ExtractNewRecordState`), as JSON without schemas; each sink connector is
given its table's schema by its converter (``schema.content``), so that no record carries one. That
is quicker than JSON with schemas, and needs no registry.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg

from cdc_migrator.capture.connect_rest import ConnectClient
from cdc_migrator.model.outside import Workers
from cdc_migrator.stack.local import StackInfo

PUBLICATION = SLOT = "bench_sink"
_JSON = "org.apache.kafka.connect.json.JsonConverter"
# How Connect's schemas say what PostgreSQL's types are, in the source connector's default modes.
_TYPES: dict[str, dict[str, object]] = {
    "bigint": {"type": "int64"},
    "integer": {"type": "int32"},
    "text": {"type": "string"},
    "boolean": {"type": "boolean"},
    "timestamp with time zone": {"type": "string", "name": "io.debezium.time.ZonedTimestamp"},
}


def workers(stack: StackInfo) -> Workers:
    """The stack's Connect."""
    return Workers.at(stack.connect_url)


def publish(source: psycopg.Connection, tables: tuple[str, ...]) -> None:
    """Publication and slot of the source connector."""
    source.execute(f"CREATE PUBLICATION {PUBLICATION} FOR TABLE {', '.join(tables)}".encode())
    source.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (SLOT,))


def capture(stack: StackInfo, source: str, tables: tuple[str, ...]) -> dict[str, str]:
    """Start a source connector into a topic for each table; the topics by table.

    A topic's name begins with the connector's, up to the first dot.
    """
    name = f"bench-sink-{secrets.token_hex(3)}"
    at = urlsplit(source)
    config = {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "1",
        "plugin.name": "pgoutput",
        "database.hostname": str(at.hostname),
        "database.port": str(at.port),
        "database.user": str(at.username),
        "database.password": str(at.password),
        "database.dbname": at.path.lstrip("/"),
        "topic.prefix": name,
        "slot.name": SLOT,
        "publication.name": PUBLICATION,
        "publication.autocreate.mode": "disabled",
        "snapshot.mode": "no_data",
        "tombstones.on.delete": "false",
        "max.batch.size": "8192",
        "max.queue.size": "32768",
        "max.queue.size.in.bytes": "50000000",
        "poll.interval.ms": "10",
        "topic.creation.enable": "true",
        "topic.creation.default.partitions": "1",
        "topic.creation.default.replication.factor": "1",
        "transforms": "flat",
        "transforms.flat.type": "io.debezium.transforms.ExtractNewRecordState",
        **{f"{part}.converter": _JSON for part in ("key", "value")},
        **{f"{part}.converter.schemas.enable": "false" for part in ("key", "value")},
    }
    with ConnectClient(workers(stack)) as connect:
        connect.put_config(name, config)
    return {table: f"{name}.public.{table}" for table in tables}


def forget(stack: StackInfo, connectors: list[str]) -> None:
    """Delete connectors."""
    with ConnectClient(workers(stack)) as connect:
        for one in connectors:
            connect.delete(one)


def without_foreign_keys(target: psycopg.Connection) -> None:
    """Drop them: tables arrive independently of each other, and some rows before what they need."""
    keys = target.execute(
        "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype = 'f'"
    ).fetchall()
    for table, name in keys:
        target.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}".encode())


@contextmanager
def running(
    stack: StackInfo, dsn: str, topics: dict[str, str], reduced: bool
) -> Iterator[Callable[[], None]]:
    """A sink connector for each topic; what it gives raises as soon as one of them has failed."""
    names = []
    with psycopg.connect(dsn) as conn:
        schemas = {table: _schemas(conn, table) for table in topics}
    with ConnectClient(workers(stack)) as connect:
        try:
            for table, topic in topics.items():
                name = f"bench-sink-{secrets.token_hex(3)}"
                connect.put_config(name, _config(dsn, table, topic, schemas[table], reduced))
                names.append(name)

            def failures() -> None:
                for one in names:
                    status = connect.status(one)
                    if status is not None and status.failed:
                        raise RuntimeError(f"the sink has failed: {status.trace}")

            yield failures
        finally:
            forget(stack, names)


def _config(
    dsn: str, table: str, topic: str, schemas: tuple[str, str], reduced: bool
) -> dict[str, str]:
    at = urlsplit(dsn)
    key, value = schemas
    return {
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        "tasks.max": "1",
        "topics": topic,
        # One statement for many rows fails where a batch has a row twice; reduced, it has not.
        "connection.url": f"jdbc:postgresql://{at.hostname}:{at.port}{at.path}"
        f"?reWriteBatchedInserts={str(reduced).lower()}",
        "connection.username": str(at.username),
        "connection.password": str(at.password),
        "insert.mode": "upsert",
        "primary.key.mode": "record_key",
        "primary.key.fields": "id",
        "delete.enabled": "false",
        "schema.evolution": "none",
        "collection.name.format": f"public.{table}",
        "batch.size": "5000",
        "use.reduction.buffer": str(reduced).lower(),
        "consumer.override.max.poll.records": "5000",
        "consumer.override.auto.offset.reset": "earliest",
        "consumer.override.fetch.min.bytes": "1000000",
        "consumer.override.fetch.max.wait.ms": "50",
        "consumer.override.max.partition.fetch.bytes": "10000000",
        "key.converter": _JSON,
        "key.converter.schemas.enable": "true",
        "key.converter.schema.content": key,
        "value.converter": _JSON,
        "value.converter.schemas.enable": "true",
        "value.converter.schema.content": value,
    }


def _schemas(conn: psycopg.Connection, table: str) -> tuple[str, str]:
    """Connect's schemas of a table's key (its column ``id``) and of its rows."""
    columns = conn.execute(
        "SELECT attname, format_type(atttypid, NULL), (atttypmod - 4) & 65535, "
        "(atttypmod - 4) >> 16 FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum",
        (table,),
    ).fetchall()
    fields = [
        {"field": name, "optional": False, **_type(kind, scale, precision)}
        for name, kind, scale, precision in columns
    ]
    key = {"type": "struct", "optional": False, "fields": fields[:1]}
    return json.dumps(key), json.dumps({"type": "struct", "optional": False, "fields": fields})


def _type(kind: str, scale: int, precision: int) -> dict[str, object]:
    if kind != "numeric":
        return _TYPES[kind]
    return {
        "type": "bytes",
        "name": "org.apache.kafka.connect.data.Decimal",
        "version": 1,
        "parameters": {"scale": str(scale), "connect.decimal.precision": str(precision)},
    }
