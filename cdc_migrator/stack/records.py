"""What the stack writes down in its state directory: facts settled once, children, their deaths.

Values and their files; nothing here starts or stops anything.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from cdc_migrator.stack.processes import Identity

T = TypeVar("T")

ChildState = Literal["waiting", "running", "restarting", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class Settled:
    """Chosen at the first `up` and kept, so that addresses and passwords stay valid.

    ``annex`` is where PostgreSQL's files are: the state directory, or, when the account that
    PostgreSQL must run under cannot reach that one, a directory of its own.
    """

    ports: dict[str, int]
    passwords: dict[str, str]
    cluster_id: str
    annex: str
    account: str | None
    schema_version: int = 1


@dataclass(frozen=True, slots=True)
class Running:
    """What the present children were started with; differs from one `up` to the next."""

    postgres_bin: str
    postgres_version: int
    java: str
    java_version: int
    full_jit: bool


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How the supervisor runs one child.

    ``uid``/``gid``: account to run under, or None for the supervisor's own. ``needs_port``: a
    port that must answer before the child is started. ``stop_signals``: number and seconds to
    wait for each, in order. ``stop_stage``: children of a lower stage are stopped first.
    ``leaves``: a file that it writes when it ends in good order, and where that is kept.
    """

    name: str
    command: tuple[str, ...]
    cwd: str
    log: str
    port: int
    environment: dict[str, str]
    stop_signals: tuple[tuple[int, float], ...]
    stop_stage: int
    uid: int | None = None
    gid: int | None = None
    needs_port: int | None = None
    leaves: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    children: tuple[ChildSpec, ...]
    running: Running


@dataclass(frozen=True, slots=True)
class Death:
    """``at``: seconds since the epoch. ``lived``: seconds. ``status``: exit code, or minus the
    signal's number. ``log_tail``: the last lines of the child's log at that time."""

    at: float
    lived: float
    status: int | None
    log_tail: tuple[str, ...]

    @property
    def cause(self) -> str:
        if self.status is None:
            return "could not be started"
        if self.status < 0:
            try:
                return f"killed by {signal.Signals(-self.status).name}"
            except ValueError:
                return f"killed by signal {-self.status}"
        return f"exited with code {self.status}"


@dataclass(frozen=True, slots=True)
class ChildRecord:
    """``deaths``: the latest ones, oldest first; ``restarts`` counts all."""

    state: ChildState
    process: Identity | None = None
    restarts: int = 0
    deaths: tuple[Death, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class SupervisorRecord:
    process: Identity
    children: dict[str, ChildRecord]


def read(path: Path, kind: type[T]) -> T | None:
    """The value in ``path``, or None when there is no such file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None


def write(path: Path, value: object) -> None:
    """Replace ``path`` in one step: a reader sees the old value or the new. Mode 0600."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(value))
    part.replace(path)
