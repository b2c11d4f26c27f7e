"""Kill parts of a load under writers, again and again, until it is through.

    kill      the loader kills itself at a place inside or at the edge of a chunk
    session   one of its sessions is ended, on the source or on the target
    holder    the snapshot's holder is killed: what is unfinished is read anew
    restart   the source's or the target's server dies at once and is started again

Loads take turns: the tables come in many small chunks, or each whole and frozen as it is written.

What is equal in the end is told by an account that shares nothing with the load: the loaded rows
and the stream's changes, put together row by row, against the source's content (`Rig.account`).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from cdc_migrator.faultpoints import VARIABLE
from cdc_migrator.stack import local
from tests.integration.capture_rig import Rig, eventually

PLACES = (
    "load.chunk.claimed",
    "load.chunk.emptied",
    "load.chunk.passing",
    "load.chunk.copied",
    "load.chunk.finished",
    "load.chunk.committed",
)
FAULTS = (
    *(f"kill {place}" for place in PLACES),
    "session source",
    "session target",
    "holder",
    "restart source",
    "restart target",
)
ROWS = 20_000
WHOLE_ROWS = 100_000
_LOAD = """
import sys
from cdc_migrator.backfill.load import LoadOptions, load
from cdc_migrator.model.naming import Names
source, target, name = sys.stdin.read().split("\\n")
load(source, target, Names(name), LoadOptions(workers=2, chunk_bytes=16 * 1024, OPTIONS))
"""


class Unequal(AssertionError):
    """Rows were lost, doubled or altered, or the load did not end."""


class Writer(threading.Thread):
    """Small transactions on the source, through restarts, until stopped."""

    def __init__(self, dsn: str, seed: int) -> None:
        super().__init__(daemon=True)
        self._dsn = dsn
        self._random = random.Random(seed)
        self._ending = threading.Event()

    def stop(self) -> None:
        self._ending.set()
        self.join(60)

    def run(self) -> None:
        number = 10_000_000
        while not self._ending.is_set():
            with (
                suppress(psycopg.OperationalError),
                psycopg.connect(self._dsn, autocommit=True) as conn,
            ):
                while not self._ending.wait(0.005):
                    number += 1
                    with conn.transaction(force_rollback=self._random.random() < 0.1):
                        self._write(conn, number)
            self._ending.wait(0.1)

    def _write(self, conn: psycopg.Connection, number: int) -> None:
        chosen = self._random.randint(1, ROWS)
        conn.execute("INSERT INTO shop.item VALUES (%s, 1, 'new')", (number,))
        conn.execute("INSERT INTO shop.log VALUES (%s, 'new')", (number % 5,))
        conn.execute("UPDATE shop.item SET amount = amount + 1 WHERE id = %s", (chosen,))
        if number % 3 == 0:
            conn.execute("DELETE FROM shop.item WHERE id = %s", (chosen // 2,))
        if number % 4 == 0:
            conn.execute(
                "DELETE FROM shop.log WHERE ctid = (SELECT ctid FROM shop.log LIMIT 1 OFFSET %s)",
                (chosen // 10,),
            )


@dataclass
class LoadKills:
    """One load of one migration; `run` strikes it with the given faults on its way."""

    rig: Rig
    stack_dir: Path
    seed: int

    def run(self, faults: list[str]) -> list[str]:
        """The faults that struck, in order; the others came when all was loaded. Raises Unequal."""
        chance = random.Random(self.seed)
        self.rig.fill(WHOLE_ROWS if self.whole else ROWS)
        writer = Writer(self.rig.source, self.seed)
        writer.start()
        struck = []
        try:
            self.rig.start()
            for fault in faults:
                if self._strike(fault, chance):
                    struck.append(fault)
            process = self._loader(chance.random() < 0.5)
            if process.wait(240) != 0:
                raise Unequal("the last loader did not end well")
        finally:
            writer.stop()
        if self.rig.account() != self.rig.content(self.rig.source):
            raise Unequal(f"the sides differ after {', '.join(struck)}")
        return struck

    @property
    def whole(self) -> bool:
        """Whether each table is one chunk."""
        return self.seed % 3 == 2

    def _loader(self, place: str | None = None, times: int = 1) -> subprocess.Popen[str]:
        code = _LOAD.replace("OPTIONS", f"freeze_bytes={1 << 30 if self.whole else 0}")
        environment = dict(os.environ)
        if place is not None:
            environment[VARIABLE] = f"{place}:{times}:KILL"
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdin is not None
        process.stdin.write("\n".join((self.rig.source, self.rig.target, self.rig.names.migration)))
        process.stdin.close()
        return process

    def _strike(self, fault: str, chance: random.Random) -> bool:
        """One fault in the middle of loading; whether there was still something to load."""
        what, _, where = fault.partition(" ")
        if what == "kill":
            # A whole table is emptied once, and has few blocks.
            times = 1 if self.whole or where.endswith("emptied") else chance.randint(1, 25)
            process = self._loader(where, times)
            return process.wait(240) == -signal.SIGKILL
        before = self._done()
        process = self._loader()
        wanted = before + chance.randint(1, 25)
        eventually(
            lambda: (
                (self._copying() if self.whole else self._done() >= wanted)
                or process.poll() is not None
            ),
            120,
        )
        struck = process.poll() is None
        if struck:
            self._hit(what, where)
            # It goes on by itself; what it does then is cut short for the next fault.
            after = self._done()
            eventually(lambda: self._done() != after or process.poll() is not None, 120)
        process.kill()
        process.wait(60)
        return struck

    def _copying(self) -> bool:
        """Whether rows are under way into the target."""
        with suppress(psycopg.OperationalError):
            return bool(
                self.rig.one(
                    self.rig.target,
                    "SELECT count(*) FROM pg_stat_progress_copy WHERE tuples_processed > 0",
                )
            )
        return False

    def _hit(self, what: str, where: str) -> None:
        if what == "holder":
            with suppress(psutil.NoSuchProcess, TypeError):
                psutil.Process(
                    self.rig.one(
                        self.rig.target, "SELECT snapshot_holder_pid FROM cdc_migrator.migration"
                    )
                ).kill()
        elif what == "session":
            dsn = self.rig.source if where == "source" else self.rig.target
            self.rig.one(
                dsn,
                "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity "
                "WHERE application_name = %s ORDER BY random() LIMIT 1) a",
                f"cdcm-{self.rig.names.migration}-load",
            )
        else:
            victim = local.status(self.stack_dir).pids[where]
            os.kill(victim, signal.SIGQUIT)
            eventually(lambda: not psutil.pid_exists(victim), 60)
            eventually(lambda: self._answers(where), 60)

    def _answers(self, where: str) -> bool:
        with suppress(psycopg.OperationalError):
            dsn = self.rig.source if where == "source" else self.rig.target
            return bool(self.rig.one(dsn, "SELECT true"))
        return False

    def _done(self) -> int:
        with suppress(psycopg.OperationalError):
            return int(
                self.rig.one(
                    self.rig.target, "SELECT count(*) FROM cdc_migrator.backfill_chunk WHERE done"
                )
            )
        return 0
