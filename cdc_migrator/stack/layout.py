"""Where everything lies in a state directory, and the lock that lets one command at a time in."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cdc_migrator.errors import Failed, Refused
from cdc_migrator.stack.progress import Talk

SERVERS = ("source", "target")
CHILDREN = ("source", "target", "kafka", "connect")
LOGS = (*CHILDREN, "supervisor")
LOCK_PATIENCE_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Names inside the state directory ``root`` (absolute)."""

    root: Path

    @property
    def settled(self) -> Path:
        return self.root / "stack.json"

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def supervisor(self) -> Path:
        return self.root / "supervisor.json"

    @property
    def supervisor_lock(self) -> Path:
        return self.root / "supervisor.lock"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def plugins(self) -> Path:
        return self.root / "plugins"

    @property
    def kafka(self) -> Path:
        return self.root / "kafka"

    @property
    def connect(self) -> Path:
        return self.root / "connect"

    def log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"

    def exists(self) -> bool:
        return self.settled.exists()

    def create(self, traversable: bool) -> None:
        """Make the directory and its rooms. Raises Refused for a directory that holds something
        else: `down --purge` removes everything in it."""
        if self.root.exists() and not self.exists():
            foreign = [p.name for p in self.root.iterdir() if p.name != "lock"]
            if foreign:
                raise Refused(
                    "CDCM-STACK-NOT-OURS",
                    f"{self.root} is not empty and holds no stack",
                    "give an empty or new directory with --state-dir",
                )
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o711 if traversable else 0o700)

    def rooms(self) -> None:
        for directory in (self.secrets, self.kafka, self.connect, self.root / "logs"):
            directory.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def locked(self, talk: Talk) -> Iterator[None]:
        """Hold the directory against other `stack` commands; released by the kernel when this
        process ends. Raises Failed when another one holds it for minutes."""
        path = self.root / "lock"
        deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
        told = False
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            if _take(handle):
                # A purge may have removed the file between opening and locking it.
                if _is_same_file(handle, path):
                    break
                os.close(handle)
                self.root.mkdir(parents=True, exist_ok=True)
                continue
            os.close(handle)
            if not told:
                talk.say("waiting for another stack command on the same directory")
                told = True
            if time.monotonic() > deadline:
                raise Failed(
                    "CDCM-STACK-BUSY",
                    f"another stack command has been using {self.root} for minutes",
                    "wait for it or end it, then try again",
                )
            time.sleep(0.1)
        try:
            yield
        finally:
            os.close(handle)


def _take(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same_file(handle: int, path: Path) -> bool:
    try:
        return os.fstat(handle).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
