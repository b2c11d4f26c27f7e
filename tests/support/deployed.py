"""What the files of a deployment say, read as the programs that take them would read it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from cdc_migrator.cli.main import app
from cdc_migrator.config.loader import load
from cdc_migrator.config.settings import Settings
from cdc_migrator.monitor.http import Answers, Check, HealthServer
from cdc_migrator.stack import lock

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "Dockerfile"
COMPOSE = ROOT / "compose"
CONNECT_IMAGE = COMPOSE / "connect" / "Dockerfile"
KUBERNETES = ROOT / "deploy" / "kubernetes"


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their arguments, continued lines joined."""
    lines = [x for x in dockerfile.read_text().splitlines() if not x.lstrip().startswith("#")]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    split = (line.partition(" ") for line in text.splitlines() if line.strip())
    return [(name, rest.strip()) for name, _, rest in split]


def last_stage(dockerfile: Path) -> list[tuple[str, str]]:
    """The instructions that make the image itself."""
    every = instructions(dockerfile)
    begins = max(at for at, (name, _) in enumerate(every) if name == "FROM")
    return every[begins:]


def said(dockerfile: Path, name: str) -> str:
    """The argument of the image's only instruction of that name."""
    (found,) = [rest for one, rest in last_stage(dockerfile) if one == name]
    return found


def said_list(dockerfile: Path, name: str) -> list[str]:
    """The same in the form that no shell reads."""
    found: list[str] = json.loads(said(dockerfile, name))
    return found


def image_environment() -> dict[str, str]:
    """What every container of the image starts with."""
    return dict(word.split("=", 1) for word in shlex.split(said(IMAGE, "ENV")))


def arguments(dockerfile: Path) -> dict[str, str]:
    """Build arguments with their defaults."""
    given = (rest.partition("=") for name, rest in instructions(dockerfile) if name == "ARG")
    return {name: value for name, _, value in given}


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]


def settings(
    file: str,
    environment: Mapping[str, str],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Settings:
    """The settings of a migration.yaml, under the environment of the image and of a container."""
    for name in [name for name in os.environ if name.startswith("CDC_MIGRATOR_")]:
        monkeypatch.delenv(name)
    for name, value in (image_environment() | dict(environment)).items():
        if name.startswith("CDC_MIGRATOR_"):
            monkeypatch.setenv(name, value)
    path = directory / "migration.yaml"
    path.write_text(file)
    return load(path)


def understood(words: Sequence[str]) -> None:
    """The command line knows the verb and each option. Raises what it answers otherwise."""
    get_command(app).main(args=[*words, "--help"], standalone_mode=False)


@contextmanager
def health(idle: float = 0.0) -> Iterator[int]:
    """The product's own server of probes and metrics, on a port of this machine."""
    answers = Answers(
        metrics=lambda: b"", idle_seconds=lambda: idle, checks={"stream": lambda: Check(True)}
    )
    with HealthServer("127.0.0.1", 0, answers) as server:
        yield server.port


def locked_version(artifact: str) -> str:
    """The version of a jar or a plugin in the jar lock."""
    (found,) = {
        one.coordinates.split(":")[2]
        for one in lock.read().artifacts
        if one.coordinates.split(":")[1] == artifact
    }
    return found


def tool(name: str) -> Path:
    """A program of the development requirements; skips the test where they are older."""
    there = shutil.which(
        name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if there is None:
        pytest.skip(f"{name} is not in this environment: make setup installs it")
    return Path(there)
