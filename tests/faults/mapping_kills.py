"""Kill a mapped load and a mapped stream under writers, again and again; what comes of it.

    load      the command kills itself at a place inside or at the edge of a part of a table;
              or the snapshot's holder is killed, and what is unfinished is read anew
    apply     the service kills itself at a statement of the transaction that applies
    whatever  it is killed from outside: the service, a walsender, Connect, the broker, a server

Each time the same verb is started again. What the target must hold is plain SQL over the source
(`mapped_shop.differing`), asked with the writers at rest.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg

from cdc_migrator.faultpoints import VARIABLE
from cdc_migrator.stack import local
from tests.faults import mapped_shop
from tests.faults.load_kills import PLACES as LOAD_PLACES
from tests.faults.places import OUTSIDE, STATEMENTS
from tests.support.live import LiveMigration, one, wait_for

_CHILDREN = {"connect": "connect", "broker": "kafka", "source": "source", "target": "target"}
LOAD = (*(f"load {place.removeprefix('load.')}" for place in LOAD_PLACES), "load holder")
# Where the applier of a mapped stream comes by; places that it does not come to are not had.
APPLY = (
    *(f"apply {one}.{side}" for one in STATEMENTS for side in ("before", "after")),
    *(f"apply {place.removeprefix('apply.')}" for place in OUTSIDE),
    "apply copy.within",
    "apply straight.within",
)
OTHERS = ("run", "walsender", *_CHILDREN)
STREAM = (*dict.fromkeys((*APPLY, *OTHERS)),)
_LOOKED_FOR = 8.0  # seconds in which the applier comes to a place that it comes to at all
_SETTLES = 90.0


@dataclass
class MappedLife:
    """One migration between two databases.

    Attributes:
        tried, struck: faults, in order, and those of them that came about.
        commits: of the writers, at the end.
    """

    live: LiveMigration
    stack_dir: Path
    seed: int
    tried: list[str] = field(default_factory=list)
    struck: list[str] = field(default_factory=list)
    commits: int = 0

    def run(self, load: list[str], stream: list[str], until: float) -> None:
        """Strike at the load, then at the stream until the time is up.

        Raises:
            AssertionError: the target does not hold what it must, or it does not end.
        """
        chance = random.Random(self.seed)
        mapped_shop.create(self.live)
        with mapped_shop.Writers(self.live.source, self.seed) as writers:
            try:
                for fault in load:
                    self.tried.append(fault)
                    self._load(fault, chance)
                self.live.cli("migrate", "--no-run")
                for number, fault in enumerate(stream):
                    if number and time.monotonic() > until:
                        break
                    self.tried.append(fault)
                    self._stream(fault, chance)
                    self._equal(writers)
                self._compared(writers)
            finally:
                self.commits = writers.committed

    def _load(self, fault: str, chance: random.Random) -> None:
        """Begin or go on with the load; it may be through before the fault comes."""
        what = fault.removeprefix("load ")
        if what == "holder":
            command = self.live.start("migrate", "--no-run", log="migrate.log")
            wait_for("a part is loaded", lambda: self._parts() or command.poll() is not None, 120)
            holder = one(self.live.target, "SELECT snapshot_holder_pid FROM cdc_migrator.migration")
            if command.poll() is None and holder is not None:
                with suppress(psutil.NoSuchProcess):
                    psutil.Process(holder).kill()
                    self.struck.append(fault)
            command.kill()
            command.wait(30)
            return
        times = 1 if what.endswith("emptied") else chance.randint(1, 12)
        command = self.live.start(
            "migrate", "--no-run", log="migrate.log", env={VARIABLE: f"load.{what}:{times}:KILL"}
        )
        code = command.wait(180)
        assert code in (0, -signal.SIGKILL), f"{fault}: {self.live.log('migrate.log')[-3000:]}"
        if code:
            self.struck.append(fault)

    def _parts(self) -> bool:
        with suppress(psycopg.Error):
            return bool(
                one(self.live.target, "SELECT count(*) FROM cdc_migrator.backfill_chunk WHERE done")
            )
        return False

    def _stream(self, fault: str, chance: random.Random) -> None:
        """One fault while changes are applied."""
        what = fault.removeprefix("apply ")
        if what == fault:
            self._serve()
            wait_for("changes are applied", self._working, _SETTLES)
            time.sleep(chance.random())
            self._kill(fault)
            self.struck.append(fault)
            return
        self._end()
        command = self.live.start(
            "run", env={VARIABLE: f"apply.{what}:{chance.randint(1, 3)}:KILL"}
        )
        with suppress(AssertionError):  # to some places the applier does not come
            wait_for(fault, lambda: command.poll() is not None, _LOOKED_FOR)
        if command.poll() is not None:
            assert command.returncode == -signal.SIGKILL, self.live.log()[-3000:]
            self.struck.append(fault)

    def _working(self) -> bool:
        self._serve()
        with suppress(psycopg.Error):
            return self.live.working()
        return False

    def _kill(self, victim: str) -> None:
        if victim == "run":
            self._end()
        elif victim == "walsender":
            one(
                self.live.source,
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
                "WHERE slot_name = %s",
                self.live.slot,
            )
        else:
            pid = local.status(self.stack_dir).pids[_CHILDREN[victim]]
            os.kill(pid, signal.SIGKILL)
            wait_for("it is gone", lambda: not psutil.pid_exists(pid))

    def _serve(self) -> None:
        """Who supervises the service starts it again."""
        if all(process.poll() is not None for process in self.live.processes):
            self.live.start("run")

    def _end(self) -> None:
        for process in self.live.processes:
            process.kill()
            process.wait(30)

    def _equal(self, writers: mapped_shop.Writers) -> None:
        """The stream goes on, and the target comes to hold what it must."""
        before = writers.committed
        wait_for("writers go on", lambda: writers.committed > before + 20, _SETTLES)
        with writers.paused():
            drained = wait_for("the source answers", self._position, _SETTLES)
            wait_for("all of it is applied", lambda: self._applied(drained), _SETTLES, 0.1)
            differing = mapped_shop.differing(self.live)
            assert not differing, f"after {self.struck[-1:]}: {', '.join(differing)}"

    def _position(self) -> int:
        with suppress(psycopg.OperationalError):
            return int(
                one(self.live.source, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
            )
        return 0

    def _applied(self, position: int) -> bool:
        self._serve()
        with suppress(psycopg.Error):
            halted = self.live.halted()
            assert not halted, f"halted: {halted}"
            at = one(self.live.target, "SELECT commit_position FROM cdc_migrator.stream_progress")
            return bool(at is not None and at >= position)
        return False

    def _compared(self, writers: mapped_shop.Writers) -> None:
        """The product says the same, with the writers at work; also of rows that nobody claims."""
        self._equal(writers)
        done = self.live.cli("reconcile", "-o", "json", check=None)
        assert done.returncode == 0, f"reconcile: {done.stdout[-1500:]}{done.stderr[-1500:]}"
