"""Strike at a cutover or a rollback: kill its command, or whatever it rests on, in each state.

Whoever is struck, the command is then typed again until it says that it has ended. It must end,
done or undone; writers go on by themselves; after each way both sides come to hold the same rows;
and at the end of the migration's life every acknowledged commit is where it belongs, once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg

from cdc_migrator.cutover.machine import State
from cdc_migrator.faultpoints import VARIABLE
from cdc_migrator.stack import local
from tests.faults.switching import Switching, switched
from tests.support.live import LiveMigration, one, wait_for

SETTINGS = {
    "tables": {"include": ["app.*"]},
    "backup": {"required": False},
    "cutover": {"hooks": [{"kind": "route"}], "budget": "4s"},
}
_WORKING = [state for state in State if state not in (State.DONE, State.UNDONE, State.REHEARSED)]
# What makes a state come about: undoing needs something to be undone for.
_WITHIN = ("fence.raising", "cutover.opening", "cutover.opened.before", "cutover.opened.after")
PLACES = (*(f"cutover.{s}{end}" for s in _WORKING for end in ("", ".done")), *_WITHIN)
_CHILDREN = {"connect": "connect", "broker": "kafka", "source": "source", "target": "target"}
OTHERS = ("run", "walsender", *_CHILDREN)
_STALLED = ("fencing", "draining", "verifying", "sequences", "opening", "switching")
_TRIES = 12
_DOUBTED = "was not proven"
# Where CPU is short the sides fall apart between the gates and the fence: it is undone, rightly.
_BEHIND = "CDCM-CUTOVER-LAG"
CUTOVER, ROLLBACK = "cutover", "rollback"
# Of what both sides hold, row for row.
DIGEST = (
    "SELECT (SELECT md5(string_agg(e::text, '|' ORDER BY id)) FROM app.entry e) || "
    "(SELECT md5(string_agg(t::text, '|' ORDER BY writer)) FROM app.total t) || "
    "(SELECT md5(string_agg(l::text, '|' ORDER BY l::text)) FROM app.log l)"
)


@dataclass(frozen=True, slots=True)
class Fault:
    """Who is killed when the command comes to a place; it is stopped there meanwhile."""

    victim: str
    place: str
    verb: str = CUTOVER

    def __str__(self) -> str:
        return f"{self.victim} at {self.place}" + (" back" if self.verb == ROLLBACK else "")

    @property
    def state(self) -> str:
        """Which of the machine's states the command is in, and on which way."""
        return f"{self.verb}: {'.'.join(self.place.split('.')[:2])}"


COMMAND = tuple(Fault("command", place) for place in PLACES)
REST = tuple(Fault(victim, f"cutover.{state}") for victim in OTHERS for state in _STALLED)
BACK = tuple(replace(one, verb=ROLLBACK) for one in (*COMMAND, *REST))


@dataclass(slots=True)
class Life:
    """One migration: what struck its ways, how each ended, and what is wrong at the end.

    `ways`: how often a side was opened.
    """

    faults: list[tuple[str, str]] = field(default_factory=list)
    commits: int = 0
    wrong: list[str] = field(default_factory=list)
    stalls_ms: list[float] = field(default_factory=list)
    suspects: list[str] = field(default_factory=list)
    ways: int = 0


class Strikes:
    """A live migration with its applications, and a stack that may be struck."""

    def __init__(self, live: LiveMigration, stack_dir: Path | None) -> None:
        self._live = live
        self._stack_dir = stack_dir

    def live_through(self, there: list[Fault], back: list[Fault], until: float) -> Life:
        """Strike at one way after the other, until the time is up or all faults were had.

        Args:
            there: at cutovers; taken from the front. back: at rollbacks; none: nobody strikes.
        """
        life = Life()
        Switching.prepare(self._live)
        self._live.cli("way-back", "prepare")
        with Switching(self._live) as apps:
            wait_for("writers write", lambda: apps.commits() > 50)
            cut(self._live, "--rehearse")
            try:
                while there and time.monotonic() < until:
                    self._go(there.pop(0), life, apps)
                    # A rehearsal, or one that was undone, has left the target open.
                    while life.ways % 2:
                        self._go(back.pop(0) if back else None, life, apps)
            except AssertionError as error:
                life.wrong.append(f"{life.faults[-1:]}: {str(error)[-1500:]}")
        life.commits = apps.commits()
        life.wrong += apps.wrong(done=life.ways % 2 == 1, led=life.ways)
        return life

    def _go(self, fault: Fault | None, life: Life, apps: Switching) -> None:
        """One way, struck at or not; where it is undone nothing has changed."""
        verb = fault.verb if fault else ROLLBACK
        self._until_ready(life, verb)
        if fault is None:
            state = str(cut(self._live, "--yes", verb=verb)["state"])
        else:
            life.faults.append((str(fault), "stuck"))
            state = self._strike(fault)
            life.faults[-1] = (str(fault), state)
        before = apps.commits()
        wait_for("writers go on", lambda: apps.commits() > before + 50, 60)
        life.ways += state == "done"
        if state == "done" and verb == CUTOVER:
            life.stalls_ms += [round(one * 1000, 1) for one in apps.stalls()]
        self._equal(apps)

    def _equal(self, apps: Switching) -> None:
        """Both sides come to hold the same rows."""
        with apps.paused():

            def equal() -> bool:
                self._serve()
                with suppress(psycopg.Error):
                    return one(self._live.source, DIGEST) == one(self._live.target, DIGEST)
                return False

            wait_for("both sides hold the same rows", equal, 90, 0.2)

    def _strike(self, fault: Fault) -> str:
        """Begin a cutover, strike, and go on until it has ended; the state."""
        alone = fault.victim == "command"
        rehearsal = fault.place.startswith("cutover.undoing")
        self._serve()
        command = begin(
            self._live,
            fault.place,
            "KILL" if alone else "STOP",
            "--rehearse" if rehearsal else "--yes",
            verb=fault.verb,
        )
        try:
            if not alone:
                self._kill(fault.victim)
                # What was struck is found gone, or coming back.
                time.sleep(random.choice([0.0, 0.02, 0.3, 1.0]))
                command.send_signal(signal.SIGCONT)
            command.wait(150)
        finally:
            command.kill()
            command.wait(20)
        return self._end(fault.verb)

    def _end(self, verb: str) -> str:
        """Type the command again until there is nothing left to go on with."""
        self._serve()
        for _ in range(_TRIES):
            try:
                last = switched(self._live, back=verb == ROLLBACK)
            except psycopg.OperationalError:
                time.sleep(0.5)  # the target is coming back
                continue
            if last["ended_at"] is not None:
                return str(last["state"])
            again = self._live.cli(verb, "--yes", "-o", "json", check=None)
            (self._live.directory / "again.log").open("a").write(again.stderr + again.stdout)
            self._serve()
        raise AssertionError(f"the {verb} does not end: {self._live.log('again.log')[-3000:]}")

    def _serve(self) -> None:
        """Who supervises the service starts it again."""
        if all(process.poll() is not None for process in self._services()):
            self._live.start("run")

    def _services(self) -> list[subprocess.Popen[bytes]]:
        return [process for process in self._live.processes if "run" in process.args]  # type: ignore[operator]

    def _until_ready(self, life: Life, verb: str) -> None:
        """What the last fault struck is back; what is in doubt is compared."""

        reasons: list[str] = []

        def ready() -> bool:
            nonlocal reasons
            self._serve()
            if verb == ROLLBACK:
                told = self._live.cli("way-back", "status", "-o", "json", check=None)
                back = json.loads(told.stdout) if told.stdout else {}
                near = (back.get("lag_seconds") or 99.0) < 1.0
                reasons = [str(back)]
                return bool(back.get("alive") and back.get("active") and near)
            told = self._live.cli("status", "-o", "json", check=None)
            reasons = json.loads(told.stdout)["ready"]["reasons"] if told.stdout else ["no status"]
            if any(_DOUBTED in reason for reason in reasons):
                lines = self._live.log().splitlines()
                life.suspects += [one for one in lines if "transactions-suspect" in one][-1:]
            if any(word in reason for reason in reasons for word in (_DOUBTED, "compared")):
                self._live.cli("reconcile", check=None)
            return not reasons

        try:
            wait_for("the migration is ready again", ready, 120, 0.3)
        except AssertionError as error:
            raise AssertionError(f"{error}: {reasons}") from None

    def _kill(self, victim: str) -> None:
        if victim == "run":
            for process in self._services():
                process.kill()
                process.wait(20)
        elif victim == "walsender":
            one(
                self._live.source,
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
                "WHERE slot_name = %s",
                self._live.slot,
            )
            one(
                self._live.target,
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
                "WHERE slot_name = %s",
                f"cdcm_{self._live.name}_back_1",
            )
        else:
            assert self._stack_dir is not None
            pid = local.status(self._stack_dir).pids[_CHILDREN[victim]]
            os.kill(pid, signal.SIGKILL)
        if victim == "run":
            self._serve()


def cut(
    live: LiveMigration, *arguments: str, check: int = 0, verb: str = CUTOVER
) -> dict[str, Any]:
    """Type `cutover` or `rollback`; its document. What is in doubt is compared before.

    Where CPU is short a pause looks like a cut, and the gate for it is asked again.
    """
    for _ in range(_TRIES):
        done = live.cli(verb, *arguments, "-o", "json", check=None)
        if done.returncode == 3 and _DOUBTED in done.stderr:
            live.cli("reconcile")
            continue
        if done.returncode == 1 and _BEHIND in done.stderr:
            continue
        assert done.returncode == check, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return dict(json.loads(done.stdout))
    raise AssertionError("there is always something in doubt")


def begin(
    live: LiveMigration, place: str, number: str, *arguments: str, verb: str = CUTOVER
) -> subprocess.Popen[bytes]:
    """Type `cutover` or `rollback`, which gets a signal at a place; returns when it is there."""
    for _ in range(_TRIES):
        (live.directory / "cutover.log").unlink(missing_ok=True)
        command = live.start(
            verb, *(arguments or ("--yes",)), log="cutover.log",
            env={VARIABLE: f"{place}:1:{number}"},
        )  # fmt: skip
        wait_for(f"the command comes to {place}", lambda c=command: _there(live, c), 120, 0.005)  # type: ignore[misc]
        if command.poll() not in (1, 3):
            return command
        live.cli("reconcile")
    raise AssertionError("there is always something in doubt")


def _there(live: LiveMigration, command: subprocess.Popen[bytes]) -> bool:
    """Whether the command has come to its place, or was refused for a doubt or for lag."""
    code = command.poll()
    if code is None:
        state = Path(f"/proc/{command.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "T"
    said = live.log("cutover.log")
    refused = (code == 3 and _DOUBTED in said) or (code == 1 and _BEHIND in said)
    assert code == -signal.SIGKILL or refused, (
        f"the command has ended before it came there: {said[-2500:]}"
    )
    return True


def end_of(live: LiveMigration) -> None:
    """Remove what the migration made, whatever became of it."""
    live.cli("cutover", "abort", check=None)
    live.cli("rollback", "abort", check=None)
    live.cli("finish", "--yes", "--unfence-source", check=None)
    live.close()
