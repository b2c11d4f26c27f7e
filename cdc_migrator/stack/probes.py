"""Whether each part of the stack really serves, asked in its own protocol."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

import httpx
import psycopg
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from psycopg import sql

from cdc_migrator.stack import kafka, ports, postgres

Probe = Callable[[], bool]
POLL_SECONDS = 0.1

# librdkafka reports each refused connection of a broker that is still starting.
_silent = logging.getLogger("cdc_migrator.stack.probes.librdkafka")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


def postgres_serves(admin_dsn: str) -> bool:
    """A query is answered, and the stack's database exists (made here after the first start)."""
    try:
        with psycopg.connect(admin_dsn, connect_timeout=3, autocommit=True) as connection:
            found = connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", [postgres.DATABASE]
            ).fetchone()
            if found is None:
                connection.execute(
                    sql.SQL("CREATE DATABASE {}").format(sql.Identifier(postgres.DATABASE))
                )
    except psycopg.OperationalError:
        return False
    return True


def broker_serves(port: int) -> bool:
    """The broker lists itself in its own metadata."""
    if not ports.answers(port):
        return False
    client = AdminClient(
        {"bootstrap.servers": f"{ports.HOST}:{port}", "log_level": 0}, logger=_silent
    )
    try:
        return len(client.list_topics(timeout=2).brokers) > 0
    except KafkaException:
        return False


def worker_serves(port: int) -> bool:
    """The Connect worker has joined its group and knows the Debezium connector."""
    base = f"http://{ports.HOST}:{port}"
    try:
        # trust_env: a proxy of this machine has no business with loopback.
        with httpx.Client(base_url=base, timeout=3, trust_env=False) as client:
            if client.get("/health").status_code != httpx.codes.OK:
                return False
            plugins = client.get("/connector-plugins")
            return plugins.status_code == httpx.codes.OK and any(
                plugin["class"] == kafka.PLUGIN for plugin in plugins.json()
            )
    except httpx.TransportError:
        return False


def wait_for_all(
    probes: Mapping[str, Probe],
    timeout: float,
    ready: Callable[[str, float], None],
    check: Callable[[], None],
) -> list[str]:
    """Wait until every probe succeeded; the names of those that did not within ``timeout`` seconds.

    ``ready`` is told each name with the seconds it took. ``check`` is called between looks and
    ends the wait by raising.
    """
    began = time.monotonic()
    over = threading.Event()
    done: dict[str, float] = {}

    def watch(name: str, probe: Probe) -> None:
        while not over.is_set():
            if probe():
                done[name] = time.monotonic() - began
                return
            over.wait(POLL_SECONDS)

    threads = [threading.Thread(target=watch, args=item, daemon=True) for item in probes.items()]
    for thread in threads:
        thread.start()
    told: set[str] = set()
    try:
        while True:
            for name in [name for name in done if name not in told]:
                told.add(name)
                ready(name, done[name])
            if len(told) == len(probes) or time.monotonic() - began > timeout:
                return [name for name in probes if name not in told]
            check()
            time.sleep(POLL_SECONDS / 2)
    finally:
        over.set()
        for thread in threads:
            thread.join()
