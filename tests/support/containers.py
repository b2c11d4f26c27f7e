"""The tests' stack in containers: the second provider, for a machine whose Docker engine answers.

Settings come from the modules that start the local stack, images from the compose file, so both
providers run the same. The containers are on the machine's own network: an address is the same for
them and for the tests. The library is imported only when containers are wanted.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cdc_migrator.stack import kafka, local, postgres, prepare, probes
from cdc_migrator.stack.layout import SERVERS, Layout
from cdc_migrator.stack.local import StackInfo
from cdc_migrator.stack.records import Settled

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose" / "compose.yaml").read_text())[
    "services"
]
ENGINE = "unix:///var/run/docker.sock"
ENGINE_SECONDS = 3.0
START_SECONDS = 180.0
WORKER_IMAGE = "cdc-migrator-connect:tests"
# Of the images: where theirs looks for its server, keeps the log, finds what it is given.
SOCKETS = "/var/run/postgresql"
BROKER_DATA = "/var/lib/kafka/data"
BROKER_SETTINGS = "/mnt/shared/config/server.properties"
WORKER_PLUGINS = "/opt/connect-plugins"
WORKER_SETTINGS = "/etc/kafka-connect/worker.properties"


@dataclass(frozen=True, slots=True)
class Part:
    """One container: ``files`` are written into it before it starts, path to text and mode;
    ``reads`` is seen at the same path as outside; ``options`` are the engine's."""

    name: str
    image: str
    environment: Mapping[str, str]
    files: Mapping[str, tuple[str, int]]
    command: tuple[str, ...] = ()
    reads: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def docker_answers(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether an engine serves whose containers can be on this machine's own network: on Linux,
    behind a socket, neither rootless nor in a virtual machine. Without a socket it costs nothing.
    """
    kind, _, path = (environ.get("DOCKER_HOST") or ENGINE).partition("://")
    try:
        if sys.platform != "linux" or kind != "unix" or not Path(path).is_socket():
            return False
        with closing(_Engine(path)) as engine:
            engine.told("/_ping")
            told = json.loads(engine.told("/info"))
    except (OSError, ValueError, http.client.HTTPException):
        return False
    rootless = any("rootless" in one for one in told.get("SecurityOptions") or ())
    return not rootless and told.get("OperatingSystem") != "Docker Desktop"


class _Engine(http.client.HTTPConnection):
    """A conversation with whoever is behind a socket in the file system."""

    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=ENGINE_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def told(self, path: str) -> bytes:
        self.request("GET", path)
        reply = self.getresponse()
        body = reply.read()
        if reply.status != http.client.OK:
            raise OSError(f"{path} is answered with {reply.status}")
        return body


@contextmanager
def container_stack(base: Path) -> Iterator[StackInfo]:
    """A stack whose files are in a new directory below ``base``; its containers are removed at
    the end, and by the library's own reaper when this process is killed."""
    layout = Layout(base.resolve() / "stack")
    layout.create(traversable=True)
    settled = prepare.settle(layout)
    info = local.info(layout.root)
    port = settled.ports
    probe: dict[str, probes.Probe] = {
        "source": lambda: probes.postgres_serves(info.source_dsn),
        "target": lambda: probes.postgres_serves(info.target_dsn),
        "kafka": lambda: probes.broker_serves(port["kafka"]),
        "connect": lambda: probes.worker_serves(port["connect"]),
    }
    *first, worker = parts(layout, settled)
    build_worker_image()
    with ExitStack() as running:
        # A worker that finds no broker ends.
        for together in (first, [worker]):
            started = {one.name: running.enter_context(container(one)) for one in together}
            wanted = {name: probe[name] for name in started}
            missing = probes.wait_for_all(wanted, START_SECONDS, lambda *_: None, lambda: None)
            for name in missing:
                told = b"".join(started[name].get_logs())[-4000:].decode(errors="replace")
                print(f"the end of the log of {name}:\n{told}", file=sys.stderr)
            assert not missing, f"{missing} did not serve within {START_SECONDS:.0f} s"
        yield info


def parts(layout: Layout, settled: Settled) -> tuple[Part, ...]:
    """The four containers, the worker last."""
    port = settled.ports
    broker = kafka.broker_settings(layout, port["kafka"], port["controller"])
    worker = kafka.worker_settings(layout, port["connect"], port["kafka"])
    return (
        *(_server(name, settled) for name in SERVERS),
        Part(
            "kafka",
            COMPOSE["kafka"]["image"],
            COMPOSE["kafka"]["environment"] | {"CLUSTER_ID": settled.cluster_id},
            _properties(BROKER_SETTINGS, broker | {"log.dirs": BROKER_DATA}),
        ),
        Part(
            "connect",
            WORKER_IMAGE,
            # This user may not write where the image's own writes its log.
            COMPOSE["connect"]["environment"] | {"LOG_DIR": "/tmp/logs"},
            _properties(WORKER_SETTINGS, worker | {"plugin.path": WORKER_PLUGINS}),
            command=tuple(COMPOSE["connect"]["command"]),
            reads=layout.secrets,
            # Only its owner may read a secret: the user that the tests run as.
            options={"user": f"{os.getuid()}:{os.getgid()}"},
        ),
    )


def _server(name: str, settled: Settled) -> Part:
    service = COMPOSE[name]
    values = postgres.server_settings(name, settled.ports[name])
    values["unix_socket_directories"] = SOCKETS
    options = [word for key, value in values.items() for word in ("-c", f"{key}={value}")]
    password = service["environment"]["POSTGRES_PASSWORD_FILE"]
    return Part(
        name,
        service["image"],
        service["environment"] | {"POSTGRES_INITDB_ARGS": " ".join(postgres.CLUSTER)},
        {password: (settled.passwords[name], 0o400)},
        command=("postgres", *options),
        options={"shm_size": service["shm_size"]},
    )


def _properties(path: str, values: Mapping[str, str | int]) -> dict[str, tuple[str, int]]:
    return {path: (kafka.properties(values), 0o644)}


def build_worker_image() -> None:
    """The image of Connect with the connector, by the Dockerfile that the compose file uses."""
    from testcontainers.core.image import DockerImage

    dockerfile = COMPOSE["connect"]["build"]["dockerfile"]
    with DockerImage(ROOT, tag=WORKER_IMAGE, dockerfile_path=dockerfile, clean_up=False):
        pass


def container(part: Part) -> Any:
    """The library's container: a context manager that starts it, and removes it with its data."""
    from testcontainers.core.container import DockerContainer

    made = DockerContainer(part.image).with_kwargs(network="host", **part.options)
    made.with_envs(**part.environment)
    if part.command:
        made.with_command(list(part.command))
    for path, (text, mode) in part.files.items():
        made.with_copy_into_container(text.encode(), path, mode)
    if part.reads is not None:
        made.with_volume_mapping(part.reads, str(part.reads), "ro")
    return made


if __name__ == "__main__":
    build_worker_image()
