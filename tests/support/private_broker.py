"""A broker of a test's own, with settings that the stack's does not have; gone at the end."""

from __future__ import annotations

import shutil
import socket
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from cdc_migrator.stack.local import StackInfo
from tests.support.live import wait_for


@contextmanager
def private_broker(stack: StackInfo, directory: Path, settings: Mapping[str, str]) -> Iterator[str]:
    """Its bootstrap servers. Like the stack's broker, but for its place and these settings."""
    original = stack.state_dir / "kafka" / "server.properties"
    (running,) = [
        p for p in psutil.process_iter(["cmdline"]) if str(original) in (p.info["cmdline"] or [])
    ]
    port, controller = _free_ports(2)
    own = {
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "log.dirs": str(directory / "data"),
        **settings,
    }
    lines = [
        line for line in original.read_text().splitlines() if line.partition("=")[0] not in own
    ]
    file = directory / "broker.properties"
    file.write_text("\n".join([*lines, *(f"{k}={v}" for k, v in own.items())]) + "\n")
    command = [str(file) if word == str(original) else word for word in running.cmdline()]
    cluster = urlsafe_b64encode(b"\x01" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
    place = command.index("kafka.Kafka")
    tool = [*command[:place], "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(file)]
    environment = running.environ()
    with (directory / "broker.log").open("wb") as log:
        subprocess.run(tool, env=environment, cwd=directory, stdout=log, stderr=log, check=True)
        broker = subprocess.Popen(command, env=environment, cwd=directory, stdout=log, stderr=log)
    servers = f"127.0.0.1:{port}"
    try:
        wait_for("the broker answers", lambda: _answers(servers), 60)
        yield servers
    finally:
        broker.terminate()
        broker.wait(30)
        shutil.rmtree(directory / "data", ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    found = [socket.socket() for _ in range(count)]
    for one in found:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in found]
    for one in found:
        one.close()
    return ports


def _answers(servers: str) -> bool:
    try:
        return bool(AdminClient({"bootstrap.servers": servers}).list_topics(timeout=2).brokers)
    except KafkaException:
        return False
