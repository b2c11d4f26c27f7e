"""The stack in containers: when it is chosen, and that it is the local one but for its places."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc_migrator.stack import postgres, prepare
from cdc_migrator.stack.kafka import broker_settings, properties, worker_settings
from cdc_migrator.stack.layout import SERVERS, Layout
from cdc_migrator.stack.records import Settled
from tests.support import containers
from tests.support.containers import COMPOSE, ROOT, Part, parts
from tests.support.deployed import CONNECT_IMAGE, instructions, last_stage
from tests.support.engine import LINUX, Engine
from tests.support.stack import KEPT_VARIABLE, PROVIDER_VARIABLE, provider

# Where things are, as the images have it.
PLACES = {"kafka": {"log.dirs"}, "connect": {"plugin.path"}}
ENVIRONMENT = {"TESTCONTAINERS_RYUK_DISABLED": "true"}


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory for sockets, whose paths have to be short; every account can enter it."""
    with tempfile.TemporaryDirectory(prefix="cdcm-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def settled(short: Path) -> tuple[Layout, Settled]:
    layout = Layout(short / "stack")
    layout.create(traversable=True)
    return layout, prepare.settle(layout)


def one(name: str, settled: tuple[Layout, Settled]) -> Part:
    (found,) = [part for part in parts(*settled) if part.name == name]
    return found


def test_containers_are_chosen_where_an_engine_answers(short: Path) -> None:
    """Unless somebody says otherwise, or has a local stack that is kept."""
    with Engine(short / "s") as engine:
        there = {"DOCKER_HOST": engine.host}
        assert provider(there) == "containers"
        assert [asked.path for asked in engine.asked] == ["/_ping", "/info"]
        assert provider(there | {PROVIDER_VARIABLE: "local"}) == "local"
        assert provider(there | {KEPT_VARIABLE: str(short)}) == "local"
        assert len(engine.asked) == 2
    assert provider({PROVIDER_VARIABLE: "containers"}) == "containers"
    with pytest.raises(pytest.UsageError, match=f"{PROVIDER_VARIABLE} is 'docker'"):
        provider({PROVIDER_VARIABLE: "docker"})


@pytest.mark.parametrize(
    ("ping", "info"),
    [
        (500, LINUX),
        (200, LINUX | {"SecurityOptions": ["name=seccomp", "name=rootless"]}),
        (200, LINUX | {"OperatingSystem": "Docker Desktop"}),
    ],
    ids=["failing", "rootless", "in-a-virtual-machine"],
)
def test_an_engine_that_cannot_share_this_machines_network_is_left(
    ping: int, info: dict[str, object], short: Path
) -> None:
    """Its containers would not be where the tests look for them."""
    with Engine(short / "s", info, ping) as engine:
        assert provider({"DOCKER_HOST": engine.host}) == "local"


def test_no_engine_is_found_out_in_silence(
    short: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """No socket, nobody behind it, somebody who never answers, another machine's."""
    monkeypatch.setattr(containers, "ENGINE_SECONDS", 0.1)
    monkeypatch.setattr(containers, "ENGINE", f"unix://{short / 'none'}")
    with socket.socket(socket.AF_UNIX) as left, socket.socket(socket.AF_UNIX) as mute:
        left.bind(str(short / "left"))
        mute.bind(str(short / "mute"))
        mute.listen()
        for host in ("", f"unix://{short}/left", f"unix://{short}/mute", "tcp://127.0.0.1:2375"):
            assert provider({"DOCKER_HOST": host}) == "local"
    assert capfd.readouterr() == ("", "")


def test_servers_take_the_local_ones_settings(settled: tuple[Layout, Settled]) -> None:
    """PostgreSQL itself is asked, and the image's own start finds the server in its set-up."""
    binaries = postgres.locate(None, None, Path())
    for name in SERVERS:
        part = one(name, settled)
        assert part.image == COMPOSE[name]["image"]
        program, *options = part.command
        assert program == "postgres"
        given = dict(option.split("=", 1) for option in options if option != "-c")
        expected = postgres.server_settings(name, settled[1].ports[name])
        places = {"unix_socket_directories": containers.SOCKETS}
        assert given == {key: str(value) for key, value in (expected | places).items()}
        (settled[0].root / "postgresql.conf").touch()
        done = subprocess.run(
            [binaries.directory / "postgres", "-C", "wal_level", "-D", settled[0].root, *options],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.stdout, done.returncode) == ("logical\n", 0), done.stderr


def test_broker_and_worker_have_the_local_ones_settings(settled: tuple[Layout, Settled]) -> None:
    """All but where the images keep things."""
    layout, kept = settled
    port = kept.ports
    for name, wanted in (
        ("kafka", broker_settings(layout, port["kafka"], port["controller"])),
        ("connect", worker_settings(layout, port["connect"], port["kafka"])),
    ):
        ((text, _),) = one(name, settled).files.values()
        assert {
            line.partition("=")[0]
            for line in set(text.splitlines()) ^ set(properties(wanted).splitlines())
        } == PLACES[name]
    assert one("kafka", settled).image == COMPOSE["kafka"]["image"]


def test_places_are_those_of_the_images(settled: tuple[Layout, Settled]) -> None:
    """As the compose file and the Dockerfile have them."""
    mounted = [volume.split(":")[1] for volume in COMPOSE["kafka"]["volumes"]]
    assert str(Path(containers.BROKER_SETTINGS).parent) in mounted
    assert containers.BROKER_DATA in mounted
    assert containers.WORKER_SETTINGS in COMPOSE["connect"]["command"]
    (plugins,) = [rest.split()[-1] for name, rest in last_stage(CONNECT_IMAGE) if name == "COPY"]
    assert plugins == containers.WORKER_PLUGINS
    assert ROOT / COMPOSE["connect"]["build"]["dockerfile"] == CONNECT_IMAGE


def test_the_library_is_not_imported_before_it_is_wanted() -> None:
    """Where no engine is, a session starts as fast as without it."""
    code = "import sys, tests.support.stack; print({'docker', 'testcontainers'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


STARTED = """
import sys
from pathlib import Path
from cdc_migrator.stack import prepare
from cdc_migrator.stack.layout import Layout
from tests.support.containers import build_worker_image, container, parts
layout = Layout(Path(sys.argv[1]))
build_worker_image()
for part in parts(layout, prepare.settle(layout)):
    with container(part):
        pass
"""


def test_the_engine_is_asked_for_what_was_meant(
    short: Path, settled: tuple[Layout, Settled]
) -> None:
    """By the library itself: the machine's network, nothing published, one directory mounted, no
    password in an environment, and everything removed with its data."""
    layout, kept = settled
    with Engine(short / "s") as engine:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", STARTED, layout.root],
            cwd=ROOT,
            env=os.environ | ENVIRONMENT | {"DOCKER_HOST": engine.host},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (build,) = [asked for asked in engine.asked if asked.path == "/build"]
    assert build.query["t"] == containers.WORKER_IMAGE
    dockerfile = build.query["dockerfile"]
    assert dockerfile == COMPOSE["connect"]["build"]["dockerfile"]
    with tarfile.open(fileobj=io.BytesIO(build.body)) as tar:
        context = set(tar.getnames())
    copied = [rest.split() for name, rest in instructions(CONNECT_IMAGE) if name == "COPY"]
    sources = {word for words in copied if "=" not in words[0] for word in words[:-1]}
    assert {dockerfile, *sources} <= context
    assert not any(name.startswith(("tests", ".git", ".venv")) for name in context)
    created = engine.created()
    assert [one["Image"] for one in created] == [part.image for part in parts(*settled)]
    for body, part in zip(created, parts(*settled), strict=True):
        host = body["HostConfig"]
        assert host["NetworkMode"] == "host"
        assert not host.get("PortBindings")
        binds = [f"{layout.secrets}:{layout.secrets}:ro"] if part.name == "connect" else None
        assert host.get("Binds") == binds
        assert tuple(body.get("Cmd") or ()) == part.command
        assert set(body["Env"]) == {f"{key}={value}" for key, value in part.environment.items()}
        assert not any(password in str(body) for password in kept.passwords.values())
        assert body.get("User") == part.options.get("user")
    written = [asked for asked in engine.asked if asked.path.endswith("/archive")]
    for asked, part in zip(written, parts(*settled), strict=True):
        with tarfile.open(fileobj=io.BytesIO(asked.body)) as tar:
            ((path, (text, mode)),) = part.files.items()
            (member,) = tar.getmembers()
            file = tar.extractfile(member)
            assert file is not None
            assert (f"/{member.name.lstrip('/')}", file.read().decode()) == (path, text)
            assert member.mode == mode
    removed = [asked.query for asked in engine.asked if asked.method == "DELETE"]
    assert len(removed) == len(created)
    assert all(query["force"] == query["v"] == "True" for query in removed)
