"""Strike the applier of a live migration, again and again, while a bank writes and a reader looks.

A fault names a kind and a place:

    kill     the process kills itself at a place of the apply transaction, or anywhere
    stop     it stops there; another one takes over; it continues and must find itself fenced
    restart  it stops there, the target's server or its backend dies, it continues and must go on
    cut      the proxy before the target cuts its session off; it must go on

The reader checks each state of the target that it sees. `settle` compares both sides by plain
SQL; because nothing mends a difference, it need not be called after each strike.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg

from cdc_migrator.errors import Fenced
from cdc_migrator.faultpoints import VARIABLE
from cdc_migrator.stack import local
from tests.faults import balance, bank
from tests.faults.places import OUTSIDE, PLACES
from tests.support.cutting_proxy import CuttingProxy
from tests.support.live import LiveMigration, one, wait_for

_PATIENCE = 180.0
# Of the simple query; what makes the temporary tables has the word as well.
_COMMIT = b"COMMIT\x00"
# A transaction with this in it cannot be applied twice unseen.
_TRACE = b'INSERT INTO "bank"."trace"'
# Messages of a session among which a cut falls anywhere: a batch takes 10 to 60 of them.
_MESSAGES = 60

# How often a place is reached before the fault; the first batch after a fault is the largest.
_TIMES = (1, 1, 2, 3, 5, 8, 13)


class Deviation(AssertionError):
    """The product did not do what it promises."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done; `place` of `stop` and `restart` is chosen by the seed."""

    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind} {self.what}"

    @property
    def armed(self) -> bool:
        """Whether it needs a process started for it."""
        return self.kind != "cut" and self != ANYWHERE


ANYWHERE = Fault("kill", "anywhere")
STOP = Fault("stop", "and continue")
RESTARTS = (Fault("restart", "server"), Fault("restart", "backend"))
CUTS = tuple(
    Fault("cut", f"{moment}, {heard}")
    for moment in ("before COMMIT", "after COMMIT", "any message")
    for heard in ("closed", "unheard")
)
FAULTS = (*(Fault("kill", place) for place in PLACES), ANYWHERE, STOP, *RESTARTS, *CUTS)


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault that struck.

    Attributes:
        times: the place was reached for this time; 0 where that means nothing.
        inside: a transaction was open on the target. Seen there, but for kills at a place, where
            the place says it.
        seconds: until the next strike can come.
    """

    kind: str
    what: str
    seed: int
    place: str
    times: int
    inside: bool
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Crash:
    """A migration of a bank, and its one `run` process; use as a context manager.

    Args:
        directory: for the migration's files. stack: a running one, whose target is restarted.
    """

    def __init__(
        self, directory: Path, name: str, source: str, target: str, stack: Any, seed: int = 0
    ) -> None:
        self._stack_dir = stack.state_dir
        self._exits = ExitStack()
        self._proxy = self._exits.enter_context(CuttingProxy(target, only=b"cdc-migrator apply"))
        self.migration = LiveMigration(
            directory,
            name,
            source,
            target,
            stack,
            {
                "tables": {"include": ["bank.*"]},
                "target": {"dsn": self._proxy.dsn},
                "service": {"http_port": None, "takeover_after": "1s"},
                # The bank's largest transactions go to a file and are applied in pieces.
                # Of others some rows go by COPY, and some along with the statement.
                "apply": {
                    "max_batch_rows": 100,
                    "transaction_bytes": "16KiB",
                    "inline_rows": 3,
                },
            },
        )
        self._exits.callback(self.migration.close)
        self._seed = seed
        self._runner: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Crash:
        try:
            bank.create(self.migration.source)
            self.migration.prepare()
            self.reader = self._exits.enter_context(balance.Reader(self.migration.target))
            self.bank = self._exits.enter_context(bank.Bank(self.migration.source, seed=self._seed))
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def strike(self, fault: Fault, seed: int) -> list[Strike]:
        """Strike; where a process is in the way that is not armed, kill that one first.

        Raises Deviation.
        """
        done = []
        if fault.armed and self._runner is not None:
            done.append(self._struck(ANYWHERE, seed))
        return [*done, self._struck(fault, seed)]

    def settle(self) -> list[str]:
        """Pause the bank, drain, compare; what is lost or too much, and what the reader saw."""
        self._ensure_runner()
        self.bank.pause()
        try:
            if self.migration.drain(_PATIENCE):
                found = balance.differences(self.migration.source, self.migration.target)
            else:
                found = [f"halted: {self.migration.halted()}"]
        finally:
            self.bank.resume()
        again = "SELECT count(*) FROM cdc_migrator.journal WHERE action = 'tables-again'"
        if one(self.migration.target, again):
            # Nobody takes rows away here, so the applier has lost them; reading them hides it.
            found.append("a table was read again")
        assert self.reader.failed is None, f"the reader failed: {self.reader.failed!r}"
        return [*found, *self.reader.deviations]

    def _struck(self, fault: Fault, seed: int) -> Strike:
        chance = random.Random(f"{seed} {fault}")
        began = time.monotonic()
        place, times, inside = fault.what, chance.choice(_TIMES), False
        if fault == ANYWHERE:
            times, inside = 0, self._kill_anywhere(chance)
        elif fault.kind == "kill":
            self._kill(place, times)
            inside = place not in OUTSIDE
        elif fault.kind == "cut":
            times, inside = self._cut(fault.what, chance)
        else:
            place = chance.choice(PLACES)
            strike = self._take_over if fault == STOP else self._restart
            inside = strike(place, times, fault.what)
        seconds = round(time.monotonic() - began, 2)
        return Strike(fault.kind, fault.what, seed, place, times, inside, seconds)

    # The kinds

    def _kill(self, place: str, times: int) -> None:
        process = self._start(f"{place}:{times}:KILL")
        code = process.wait(_PATIENCE)
        self._runner = None
        if code != -signal.SIGKILL:
            raise self._ended(code, f"before it was killed at {place}")

    def _kill_anywhere(self, chance: random.Random) -> bool:
        runner = self._ensure_runner()
        time.sleep(chance.uniform(0.0, 0.1))  # any moment will do
        inside = self._inside()
        os.kill(runner.pid, signal.SIGKILL)
        runner.wait(_PATIENCE)
        self._runner = None
        return inside

    def _take_over(self, place: str, times: int, _: str) -> bool:
        first = self._stopped_at(place, times)
        inside = self._inside()
        claimed = self._owner()
        second = self._start()
        self._goes_on(second)
        owner = self._owner()
        if owner == claimed or not owner[1].endswith(f":{second.pid}"):
            raise Deviation(f"{owner} owns the stream after the takeover from {claimed}")
        written = self._written_by(first.pid)
        first.send_signal(signal.SIGCONT)
        code = first.wait(_PATIENCE)
        if code != Fenced.exit_code:
            raise self._ended(code, f"and not as fenced, after it was stopped at {place}")
        if self._owner() != owner or self._written_by(first.pid) != written:
            raise Deviation(f"a process that was stopped at {place} wrote after its takeover")
        self._goes_on(second)
        return inside

    def _restart(self, place: str, times: int, what: str) -> bool:
        runner = self._stopped_at(place, times)
        inside = self._inside()
        target = self.migration.target
        if what == "server":
            # Like `pg_ctl restart -m immediate`: its supervisor starts it again.
            victim = local.status(self._stack_dir).pids["target"]
            os.kill(victim, signal.SIGQUIT)
        else:
            victim = one(target, "SELECT owner_backend FROM cdc_migrator.stream_progress")
            os.kill(victim, signal.SIGKILL)
        wait_for("the end of the server's process", lambda: not _alive(victim), 30, 0.01)
        wait_for("the server", lambda: self._asked("SELECT 1"), _PATIENCE)
        runner.send_signal(signal.SIGCONT)
        self._goes_on(runner)
        return inside

    def _cut(self, what: str, chance: random.Random) -> tuple[int, bool]:
        runner = self._ensure_runner()
        moment, _, heard = what.partition(", ")
        unheard, message, before = heard == "unheard", 0, self._proxy.cuts
        if moment == "before COMMIT":
            self._proxy.cut_before(_COMMIT, unheard, _TRACE)
        elif moment == "after COMMIT":
            self._proxy.cut_after(_COMMIT, unheard, _TRACE)
        else:
            message = chance.randrange(_MESSAGES)
            self._proxy.cut_at(message, unheard)
        wait_for(f"a cut {what}", lambda: self._proxy.cuts > before, _PATIENCE, 0.01)
        self._goes_on(runner)
        return message, self._proxy.inside

    # What they are made of

    def _start(self, fault: str | None = None) -> subprocess.Popen[bytes]:
        env = {VARIABLE: fault} if fault else None
        self._runner = self.migration.start("run", env=env)
        return self._runner

    def _ensure_runner(self) -> subprocess.Popen[bytes]:
        if self._runner is None:
            self._goes_on(self._start())
        assert self._runner is not None
        return self._runner

    def _stopped_at(self, place: str, times: int) -> subprocess.Popen[bytes]:
        process = self._start(f"{place}:{times}:STOP")
        status = psutil.Process(process.pid).status

        def stopped() -> bool:
            code = process.poll()
            if code is not None:
                raise self._ended(code, f"before it was stopped at {place}")
            return status() == psutil.STATUS_STOPPED

        wait_for(f"a stop at {place}", stopped, _PATIENCE, 0.02)
        return process

    def _goes_on(self, runner: subprocess.Popen[bytes]) -> None:
        """Wait until it has applied something that was not applied yet."""
        before = self._applied()

        def further() -> bool:
            code = runner.poll()
            if code is not None:
                raise self._ended(code, "instead of going on")
            return self._applied() > before

        wait_for("the stream goes on", further, _PATIENCE, 0.02)

    def _applied(self) -> int:
        query = "SELECT transactions_applied FROM cdc_migrator.stream_progress"
        applied: int = wait_for("the target's answer", lambda: self._asked(query), _PATIENCE)[0]
        return applied

    def _owner(self) -> tuple[int, str]:
        row = self._asked("SELECT epoch, owner FROM cdc_migrator.stream_progress")
        assert row is not None
        return row[0], row[1] or ""

    def _inside(self) -> bool:
        """Whether the stream's owner has a transaction open on the target."""
        row = self._asked(
            "SELECT a.xact_start IS NOT NULL FROM pg_stat_activity a "
            "JOIN cdc_migrator.stream_progress p ON a.pid = p.owner_backend"
        )
        return bool(row and row[0])

    def _written_by(self, pid: int) -> tuple[Any, ...] | None:
        """What a process has left in the journal."""
        return self._asked(
            "SELECT count(*), max(id) FROM cdc_migrator.journal WHERE actor LIKE %s", f"%:{pid}"
        )

    def _asked(self, query: str, *parameters: object) -> tuple[Any, ...] | None:
        """The first row, or None: also while the server is away."""
        try:
            with psycopg.connect(self.migration.target, autocommit=True) as conn:
                return conn.execute(query.encode(), parameters).fetchone()
        except psycopg.OperationalError:
            return None

    def _ended(self, code: int, when: str) -> Deviation:
        return Deviation(f"`run` ended with {code} {when}\n{self.migration.log()[-3000:]}")


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
