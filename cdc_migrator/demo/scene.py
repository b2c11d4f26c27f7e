"""What the demo stands on: both databases, the commands, the application, and who looks on.

Only the ordinary commands do the work. Here is what all parts of the plot see by themselves:
progress, positions, whether everybody is alive.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from cdc_migrator.demo.driver import Driver, ask
from cdc_migrator.demo.report import Report
from cdc_migrator.demo.workload import WorkloadProcess
from cdc_migrator.stack import local


@dataclass(frozen=True, slots=True)
class Ran:
    """A command's document, and how many seconds it took."""

    document: dict[str, Any]
    seconds: float


@dataclass(slots=True)
class Scene:
    """One demo.

    Attributes:
        directory: for the configuration, the logs, and the stack's state.
        tell: takes each line of the story, for people.
        progress: takes a short state line, often, for a live display.
        workload: the application, while it runs.
    """

    directory: Path
    stack: local.StackInfo
    tell: Callable[[str], None]
    progress: Callable[[str], None]
    driver: Driver = field(init=False)
    report: Report = field(default_factory=Report)
    workload: WorkloadProcess | None = None

    def __post_init__(self) -> None:
        where = {"CDC_MIGRATOR_STACK__STATE_DIR": str(self.stack.state_dir)}
        self.driver = Driver(self.directory, where)

    @property
    def source(self) -> str:
        """The DSN of the source."""
        return self.stack.source_dsn

    @property
    def backup(self) -> Path:
        """Where the source is dumped to."""
        return self.directory / "backup"

    @property
    def report_directory(self) -> Path:
        """Where the migration's report is written to; it stays."""
        return self.directory / "report"

    @property
    def target(self) -> str:
        """The DSN of the target."""
        return self.stack.target_dsn

    def run(self, step: str, *arguments: str, codes: tuple[int, ...] = (0,)) -> Ran:
        """Run a command to its end; its time is noted under `step`. Raises as `Driver.ask`."""
        self.watch()
        since = time.monotonic()
        document = self.driver.ask(*arguments, codes=codes)
        return Ran(document, self.step(step, since))

    def step(self, name: str, since: float) -> float:
        """Note how long it took, by `time.monotonic`; these seconds. Times of one name add up."""
        took = round(time.monotonic() - since, 2)
        self.report.steps[name] = round(self.report.steps.get(name, 0.0) + took, 2)
        return took

    def marker(self) -> Callable[[], bool]:
        """A condition: what the source had committed by now is applied on the target."""
        position = ask(self.source, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
        return lambda: (
            self.number("SELECT commit_position FROM cdc_migrator.stream_progress")
            >= int(str(position))
        )

    def alive(self) -> bool:
        """Watch, and show how far it is; True, for conditions."""
        self.watch()
        self.progress(self.state())
        return True

    def watch(self) -> None:
        """Both the command and the application must be at work; their memory is noted."""
        self.driver.check()
        if self.workload is not None:
            self.workload.check()
        with_memory = "SELECT (sample ->> 'rss_bytes')::bigint FROM cdc_migrator.stream_owner_seen"
        if self.phase() == "stream":
            self.report.rss_bytes = max(self.report.rss_bytes, self.number(with_memory))

    def state(self) -> str:
        """The phase, rows, changes and lag, in one line."""
        row: tuple[str, int, int, float | None] | None = None
        with psycopg.connect(self.target, autocommit=True) as conn:
            row = conn.execute(
                "SELECT (SELECT phase FROM cdc_migrator.migration), sum(rows_loaded)::bigint, "
                "sum(inserts + updates + deletes + truncates)::bigint, "
                "(SELECT (sample ->> 'lag_seconds')::float8 FROM cdc_migrator.stream_owner_seen) "
                "FROM cdc_migrator.table_progress"
            ).fetchone()
        if row is None:
            return ""
        lag = f", lag {row[3]:.2f} s" if row[3] is not None else ""
        return f"{row[0]}: {row[1] or 0:,} rows loaded, {row[2] or 0:,} changes applied{lag}"

    def phase(self) -> str | None:
        """Of the migration; None before it has one."""
        there = ask(self.target, "SELECT to_regclass('cdc_migrator.stream_owner_seen') IS NOT NULL")
        found = ask(self.target, "SELECT phase FROM cdc_migrator.migration") if there else None
        return str(found) if found else None

    def follows(self, seconds: float) -> bool:
        """Whether the target is behind by no more than this."""
        query = "SELECT (sample ->> 'lag_seconds')::float8 FROM cdc_migrator.stream_owner_seen"
        lag = ask(self.target, query)
        return isinstance(lag, float) and lag <= seconds

    def number(self, query: str) -> int:
        """What the target answers; 0 for nothing."""
        return int(str(ask(self.target, query) or 0))
