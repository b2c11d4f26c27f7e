"""The broker and the Connect worker: their settings and command lines. Starts neither."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from cdc_migrator.errors import Failed
from cdc_migrator.stack import logs, ports
from cdc_migrator.stack.class_archive import Archive
from cdc_migrator.stack.java import Java
from cdc_migrator.stack.layout import Layout
from cdc_migrator.stack.records import ChildSpec

PLUGIN = "io.debezium.connector.postgresql.PostgresConnector"
LARGEST_RECORD = 64 * 1024 * 1024
STOP = ((signal.SIGTERM, 15.0),)

# The broker is quiet; Connect tells what its connectors do.
LOGGING = """\
status = warn
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{{ISO8601}} %-5p %c{{1.}} %m%n
rootLogger.level = {root}
rootLogger.appenderRef.out.ref = out
logger.clients.name = org.apache.kafka.clients
logger.clients.level = warn
logger.config.name = org.apache.kafka.common.config
logger.config.level = warn
logger.values.name = org.apache.kafka.connect.runtime.WorkerConfig
logger.values.level = warn
"""


def new_cluster_id() -> str:
    """A random KRaft cluster id: 16 bytes in URL-safe base64, which no tool takes for a flag."""
    while True:
        made = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not made.startswith("-"):
            return made


def broker_settings(layout: Layout, port: int, controller: int) -> dict[str, str | int]:
    host = ports.HOST
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{host}:{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}",
        "advertised.listeners": f"PLAINTEXT://{host}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(layout.kafka / "data"),
        # A misspelt topic must be an error, not an empty topic.
        "auto.create.topics.enable": "false",
        "num.partitions": 1,
        "default.replication.factor": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        # A killed worker can start again when the transaction that it left open is aborted;
        # looking for such only every 10 s is the default.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
        "group.initial.rebalance.delay.ms": 0,
        # A killed broker may come back only when its former life's session has run out.
        "broker.session.timeout.ms": 5000,
        "broker.heartbeat.interval.ms": 500,
        # Lets a test's consumer be declared dead soon.
        "group.min.session.timeout.ms": 1000,
        # A stream is kept until its migration ends: what is gone cannot be applied.
        "log.retention.ms": -1,
        "log.retention.bytes": -1,
        "message.max.bytes": LARGEST_RECORD,
        "replica.fetch.max.bytes": LARGEST_RECORD,
        "num.network.threads": 2,
        "num.io.threads": 4,
        # The default takes 128 MB of the heap.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
    }


def worker_settings(layout: Layout, port: int, broker: int) -> dict[str, str | int]:
    host = ports.HOST
    internal = {
        f"{kind}.storage.{key}": value
        for kind in ("config", "offset", "status")
        for key, value in (("topic", f"connect-{kind}"), ("replication.factor", 1))
    }
    return {
        **internal,
        "offset.storage.partitions": 1,
        "status.storage.partitions": 1,
        "bootstrap.servers": f"{host}:{broker}",
        "group.id": "cdc-migrator-connect",
        "listeners": f"http://{host}:{port}",
        "rest.advertised.host.name": host,
        "rest.advertised.port": port,
        "plugin.path": str(layout.plugins),
        # 3 s to the first answer; scanning every class takes 15 s.
        "plugin.discovery": "service_load",
        "key.converter": "org.apache.kafka.connect.json.JsonConverter",
        "key.converter.schemas.enable": "false",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter.schemas.enable": "false",
        "exactly.once.source.support": "enabled",
        "connector.client.config.override.policy": "All",
        "offset.flush.interval.ms": 5000,
        # One worker: nobody else could take its tasks while they wait for it to come back.
        "scheduled.rebalance.max.delay.ms": 0,
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 2000,
        "producer.max.request.size": LARGEST_RECORD,
        "producer.buffer.memory": LARGEST_RECORD,
        "producer.compression.type": "lz4",
        "consumer.max.partition.fetch.bytes": LARGEST_RECORD,
        # Passwords stay in files of this directory; a stored configuration holds references.
        "config.providers": "file",
        "config.providers.file.class": (
            "org.apache.kafka.common.config.provider.FileConfigProvider"
        ),
        "config.providers.file.param.allowed.paths": str(layout.secrets),
    }


def properties(values: Mapping[str, str | int]) -> str:
    """A Java properties file; backslashes are its escapes."""
    return "".join(f"{key}={_escaped(value)}\n" for key, value in values.items())


def arguments(java: Java, class_path: Sequence[Path], home: Path, full_jit: bool) -> str:
    """A Java argument file: keeps command lines short enough to read."""
    options = [
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        *(() if full_jit else ("-XX:TieredStopAtLevel=1",)),
        *java.quieting_options,
        "-Djava.awt.headless=true",
        "-Duser.timezone=UTC",
        f"-Dlog4j2.configurationFile={home / 'log4j2.properties'}",
        f"-Djava.io.tmpdir={home / 'tmp'}",
        "-cp",
        os.pathsep.join(str(jar) for jar in class_path),
    ]
    return "".join(f'"{_escaped(option)}"\n' for option in options)


def _escaped(value: str | int) -> str:
    return str(value).replace("\\", "\\\\")


def write_home(
    home: Path, java_arguments: str, settings: Mapping[str, str | int], level: str
) -> None:
    """One JVM's files in its directory ``home``."""
    (home / "tmp").mkdir(exist_ok=True)
    (home / "java.args").write_text(java_arguments)
    (home / "server.properties").write_text(properties(settings))
    (home / "log4j2.properties").write_text(LOGGING.format(root=level))


def command(java: Java, home: Path, main_class: str, more: Sequence[str] = ()) -> tuple[str, ...]:
    return (
        str(java.executable),
        *more,
        f"@{home / 'java.args'}",
        main_class,
        str(home / "server.properties"),
    )


def format_storage(java: Java, layout: Layout, cluster_id: str) -> None:
    """Make the broker's empty log, unless it is there. Raises Failed with the tool's words."""
    data = layout.kafka / "data"
    if (data / "meta.properties").exists():
        return
    tool = command(java, layout.kafka, "kafka.tools.StorageTool")
    log = layout.log("kafka")
    with log.open("ab") as out:
        done = subprocess.run(
            [*tool[:-1], "format", "-t", cluster_id, "-c", tool[-1]],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment(),
            cwd=layout.kafka,
            timeout=120,
            check=False,
        )
    if done.returncode != 0:
        raise Failed(
            "CDCM-STACK-KAFKA",
            "the broker's storage could not be formatted: " + " | ".join(logs.tail(log, 3)),
            f"see {log}",
        )


def environment() -> dict[str, str]:
    """What a JVM inherits: not the options that other programs of this user are given."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


def children(
    layout: Layout, java: Java, broker: int, worker: int, archives: Mapping[str, Archive]
) -> tuple[ChildSpec, ...]:
    def jvm(
        name: str, home: Path, main: str, port: int, stage: int, needs: int | None
    ) -> ChildSpec:
        return ChildSpec(
            name=name,
            command=command(java, home, main, archives[name].options),
            cwd=str(home),
            log=str(layout.log(name)),
            port=port,
            environment=environment(),
            stop_signals=STOP,
            stop_stage=stage,
            needs_port=needs,
            leaves=archives[name].leaves,
        )

    connect_main = "org.apache.kafka.connect.cli.ConnectDistributed"
    return (
        jvm("kafka", layout.kafka, "kafka.Kafka", broker, 1, None),
        jvm("connect", layout.connect, connect_main, worker, 0, broker),
    )
