"""Drives the ordinary commands as a user would, each in a process of its own, and kills them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from cdc_migrator.errors import Failed

_COMMAND = (sys.executable, "-m", "cdc_migrator.cli.main")
T = TypeVar("T")


class Driver:
    """The console script, working in `directory` with the configuration file there."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._directory = directory
        self._environment = os.environ | environment
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self._directory / "migration.yaml"

    @property
    def log(self) -> Path:
        """What the migrating command says."""
        return self._directory / "migrate.log"

    def call(self, *arguments: str, codes: Collection[int] = (0,)) -> str:
        """Run a command to its end; its stdout.

        Raises:
            Failed: CDCM-DEMO-COMMAND: it did not end with one of `codes`.
        """
        done = subprocess.run(
            [*_COMMAND, *arguments],
            cwd=self._directory,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in codes:
            raise _failed(arguments[0], done.returncode, done.stderr.strip()[-800:])
        return done.stdout

    def ask(self, *arguments: str, codes: Collection[int] = (0,)) -> dict[str, Any]:
        """Run a command to its end; its document. Raises as `call`."""
        said = self.call(*arguments, "-o", "json", codes=codes)
        if not said:
            raise _failed(arguments[0], max(codes), "nothing; it was refused")
        document: dict[str, Any] = json.loads(said)
        return document

    def migrate(self) -> int:
        """Start `migrate` in the background; its process id."""
        with self.log.open("ab") as out:
            self._running = subprocess.Popen(
                [*_COMMAND, "migrate"],
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self._running.pid

    def check(self) -> None:
        """Raise Failed (CDCM-DEMO-COMMAND) if `migrate` has ended by itself."""
        if self._running is not None and self._running.poll() is not None:
            tail = self.log.read_text(errors="replace")[-800:]
            raise _failed("migrate", self._running.returncode, tail)

    def kill(self) -> None:
        """SIGKILL to the running `migrate`."""
        if self._running is not None:
            self._running.kill()
            self._running.wait()
            self._running = None

    def stop(self) -> None:
        """SIGTERM, then wait; kill if it takes too long."""
        if self._running is None:
            return
        self._running.terminate()
        try:
            self._running.wait(20)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait()
        self._running = None


def _failed(verb: str, code: int, said: str) -> Failed:
    return Failed(
        "CDCM-DEMO-COMMAND",
        f"`cdc-migrator {verb}` ended with {code}; it said: {said}",
        "Run `cdc-migrator demo --keep` and look at the logs in its directory.",
    )


def ask(dsn: str, query: str, *parameters: object) -> object:
    """The first column of the first row, or None."""
    with psycopg.connect(dsn, autocommit=True, application_name="cdc-migrator demo") as conn:
        row = conn.execute(query, parameters).fetchone()
        return row[0] if row else None


def until(what: str, condition: Callable[[], T], seconds: float, every: float = 0.05) -> T:
    """Poll until `condition` gives something true.

    Raises:
        Failed: CDCM-DEMO-TIMEOUT: not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Failed(
                "CDCM-DEMO-TIMEOUT",
                f"not within {seconds:.0f} s: {what}",
                "Run `cdc-migrator demo --keep` and look at the logs in its directory.",
            )
        time.sleep(every)
    return value
