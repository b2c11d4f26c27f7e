"""A migration driven from outside, as a user would: the console script in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import yaml

from tests.support.typed import begin, typed

# The running service waits for requests of alignment points.
LISTENS = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cdc-migrator requests' "
    "AND state = 'idle' AND datname = current_database()"
)


def wait_for(
    what: str, condition: Callable[[], Any], seconds: float = 60, every: float = 0.05
) -> Any:
    """Poll until `condition` is true and return its value; fail with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(every)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def one(dsn: str, query: str, *parameters: object) -> Any:
    """The first column of a query's first row."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        row = conn.execute(query, parameters).fetchone()
        return row[0] if row else None


@dataclass
class LiveMigration:
    """One migration with its configuration file in `directory`.

    `from_outside`: something looks at its processes from there, so each is started as a user
    starts it.
    """

    directory: Path
    name: str
    source: str
    target: str
    stack: Any
    settings: dict[str, Any] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    from_outside: bool = False

    def __post_init__(self) -> None:
        document = {
            "name": self.name,
            "source": {"dsn": self.source},
            "target": {"dsn": self.target},
            "kafka": {"bootstrap_servers": self.stack.bootstrap_servers},
            "connect": {
                "url": self.stack.connect_url,
                "secrets_dir": str(self.stack.secrets_dir),
            },
            "state_dir": str(self.directory / "state"),
            "service": {"http_port": 0, "takeover_after": "4s"},
            **self.settings,
        }
        self.directory.mkdir(parents=True, exist_ok=True)
        self.config.write_text(yaml.safe_dump(document))

    @property
    def config(self) -> Path:
        return self.directory / "migration.yaml"

    @property
    def topic(self) -> str:
        return f"cdcm.{self.name}.1.stream"

    @property
    def slot(self) -> str:
        return f"cdcm_{self.name}_1"

    def cli(self, *arguments: str, check: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end; `check` is the exit code that it must have, None for any."""
        done = typed("--config", str(self.config), *arguments, from_outside=self.from_outside)
        assert check is None or done.returncode == check, (
            f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done

    def start(
        self, *arguments: str, log: str = "run.log", env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a verb in the background; its output goes to `log` in the directory.

        `env` comes on top of this process's environment.
        """
        with (self.directory / log).open("ab") as out:
            process = begin(
                "--config",
                str(self.config),
                *arguments,
                out=out,
                err=out,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
                own_session=True,
                from_outside=self.from_outside,
            )
        self.processes.append(process)
        return process

    def log(self, name: str = "run.log") -> str:
        path = self.directory / name
        return path.read_text(errors="replace") if path.exists() else ""

    def prepare(self) -> None:
        """Everything but the stream: schema, capture, load, indexes."""
        self.cli("migrate", "--no-run")

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.cli("status", "-o", "json").stdout)
        return document

    def progress(self) -> dict[str, Any]:
        with psycopg.connect(
            self.target, autocommit=True, row_factory=psycopg.rows.dict_row
        ) as conn:
            row = conn.execute("SELECT * FROM cdc_migrator.stream_progress").fetchone()
        assert row is not None
        return row

    def halted(self, back: bool = False) -> dict[str, Any] | None:
        """The error that halted the stream, if one did; `back`: the one from the target."""
        there = self.source if back else self.target
        return one(there, "SELECT last_error FROM cdc_migrator.migration")

    def working(self) -> bool:
        """Whether the applier has committed a transaction with rows within the last second."""
        return bool(
            one(
                self.target,
                "SELECT applied_at > clock_timestamp() - interval '1 second' "
                "FROM cdc_migrator.stream_progress",
            )
        )

    def drained(self, back: bool = False) -> Callable[[], bool]:
        """A condition: everything committed on the source until now is applied.

        `back`: on the target, to the source.
        """
        here, there = (self.target, self.source) if back else (self.source, self.target)
        position = one(here, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
        return lambda: (
            one(there, "SELECT commit_position FROM cdc_migrator.stream_progress") >= position
        )

    def drain(self, seconds: float = 90, unless_halted: bool = True, back: bool = False) -> bool:
        """Wait until one side's present is applied; False when the stream halted instead."""
        done = self.drained(back)

        def settled() -> str:
            if unless_halted and self.halted(back):
                return "halted"
            if done():
                return "drained"
            ended = [process.poll() for process in self.processes]
            assert None in ended, f"run has ended ({ended[-1]})\n{self.log()[-4000:]}"
            return ""

        return bool(wait_for("everything applied", settled, seconds, 0.1) == "drained")

    def stop(self, process: subprocess.Popen[bytes], seconds: float = 20) -> int:
        """SIGTERM and wait; returns the exit code."""
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        return process.wait(seconds)

    def close(self) -> None:
        """End what still runs and remove everything that the migration made."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait(20)
        self.cli("abort", "--yes", check=None)
