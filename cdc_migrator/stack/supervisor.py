"""The process that owns the stack's children: starts them, restarts the dead, stops all in order.

It outlives the command that started it. SIGTERM stops everything; SIGHUP tries again those it had
given up on. It reads a plan and writes a record, both files of the state directory, and knows
nothing about what its children are.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from cdc_migrator.stack import class_archive, logs, ports, records, restarts
from cdc_migrator.stack.layout import Layout
from cdc_migrator.stack.processes import Identity
from cdc_migrator.stack.records import ChildRecord, ChildSpec, Death, SupervisorRecord

TAIL_LINES = 25
DEATHS_KEPT = 20
NEEDS_PATIENCE_SECONDS = 60.0


class Register:
    """The record of all children, written to disk at every change."""

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._me = Identity.of(os.getpid())
        self._children = {name: ChildRecord("waiting") for name in names}
        self._write()

    def set(self, name: str, record: ChildRecord) -> None:
        with self._guard:
            self._children[name] = record
            self._write()

    def _write(self) -> None:
        records.write(self._path, SupervisorRecord(self._me, dict(self._children)))


class Child(threading.Thread):
    """Keeps one child running until told to stop."""

    def __init__(self, spec: ChildSpec, register: Register) -> None:
        super().__init__(name=spec.name, daemon=True)
        self.spec = spec
        self._register = register
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._retry = threading.Event()
        self._starting = threading.Lock()
        self._deaths: tuple[Death, ...] = ()
        self._restarts = 0

    def run(self) -> None:
        lives: list[float] = []
        while self._await_needs():
            began = time.monotonic()
            status = self._live()
            if self._stopping.is_set():
                break
            lives = [*lives[-restarts.PATIENCE :], time.monotonic() - began]
            self._bury(status, lives[-1])
            decision = restarts.decide(lives)
            if isinstance(decision, restarts.GiveUp):
                self._record("failed", reason=decision.reason)
                self._say(f"gave up: {decision.reason}")
                self._retry.wait()
                self._retry.clear()
                lives = []
            else:
                self._record("restarting")
                self._stopping.wait(decision.delay)
            self._restarts += 1
        self._record("stopped")

    def retry(self) -> None:
        self._retry.set()

    def stop(self, at_once: bool = False) -> None:
        """Stop the child for good and wait for it.

        Args:
            at_once: nobody needs its data any more: without the first, patient signal, unless
                it leaves something.
        """
        hasty = at_once and self.spec.leaves is None
        with self._starting:
            self._stopping.set()
        self._retry.set()
        process = self._process
        if process is not None:
            for number, seconds in (*self.spec.stop_signals[hasty:], (signal.SIGKILL, 5.0)):
                process.send_signal(number)
                self.join(seconds)
                if not self.is_alive():
                    break
        self.join(5.0)
        if self.spec.leaves and process is not None and (process.returncode or 0) >= 0:
            class_archive.keep(self.spec.leaves)

    def _await_needs(self) -> bool:
        """Wait for the port that this child cannot start without; False when to stop. After a
        minute it is tried all the same: its own log then says what it misses."""
        deadline = time.monotonic() + NEEDS_PATIENCE_SECONDS
        while not self._stopping.is_set():
            needed = self.spec.needs_port
            if needed is None or ports.answers(needed) or time.monotonic() > deadline:
                return True
            self._stopping.wait(0.1)
        return False

    def _live(self) -> int | None:
        """One life of the child: its exit status, or None when it could not be started."""
        log = Path(self.spec.log)
        logs.rotate(log)
        with log.open("ab") as out, self._starting:
            if self._stopping.is_set():
                return None
            try:
                self._process = subprocess.Popen(
                    self.spec.command,
                    cwd=self.spec.cwd,
                    env=self.spec.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    user=self.spec.uid,
                    group=self.spec.gid,
                    extra_groups=() if self.spec.uid is not None else None,
                    # A terminal's or a test runner's signal to our group must not reach it.
                    start_new_session=True,
                )
            except OSError as error:
                out.write(f"could not be started: {error}\n".encode())
                return None
            self._record("running", Identity.of(self._process.pid))
        return self._process.wait()

    def _bury(self, status: int | None, lived: float) -> None:
        tail = logs.tail(Path(self.spec.log), TAIL_LINES)
        death = Death(time.time(), round(lived, 3), status, tail)
        self._deaths = (*self._deaths[-(DEATHS_KEPT - 1) :], death)
        self._say(f"{death.cause} after {lived:.1f} s")

    def _record(
        self, state: records.ChildState, process: Identity | None = None, reason: str | None = None
    ) -> None:
        record = ChildRecord(state, process, self._restarts, self._deaths, reason)
        self._register.set(self.name, record)

    def _say(self, text: str) -> None:
        say(f"{self.name} {text}")


def say(text: str) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    sys.stdout.write(f"{stamp} {text}\n")
    sys.stdout.flush()


_ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}


def supervise(layout: Layout) -> None:
    """Run the plan of a state directory until SIGTERM, or SIGQUIT: then all are ended at once."""
    plan = records.read(layout.plan, records.Plan)
    if plan is None:
        say(f"no plan in {layout.root}")
        return
    wake = threading.Event()
    asked: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        wake.set()

    for number in (*_ENDING, signal.SIGHUP):
        signal.signal(number, on_signal)
    register = Register(layout.supervisor, tuple(spec.name for spec in plan.children))
    children = {spec.name: Child(spec, register) for spec in plan.children}
    say(f"supervising {', '.join(children)}")
    for child in children.values():
        child.start()
    while not _ENDING & set(asked):
        wake.wait()
        wake.clear()
        while signal.SIGHUP in asked:
            asked.remove(signal.SIGHUP)
            for child in children.values():
                child.retry()
    at_once = signal.SIGQUIT in asked
    say("stopping at once" if at_once else "stopping")
    stop_in_order(children, at_once)
    say("stopped")


def stop_in_order(children: Mapping[str, Child], at_once: bool) -> None:
    """Readers before what they read from: stage by stage, a stage's children together."""
    for stage in sorted({child.spec.stop_stage for child in children.values()}):
        stoppers = [
            threading.Thread(target=child.stop, args=(at_once,))
            for child in children.values()
            if child.spec.stop_stage == stage
        ]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join()


def detach() -> None:
    """Leave the command that started us: it does not have to collect us, nor we to die with it."""
    if os.fork() > 0:
        os._exit(0)
    os.setsid()


def only_one(layout: Layout) -> bool:
    """Take the supervisor's lock, held until this process ends; False when another has it."""
    handle = os.open(layout.supervisor_lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    return True


def main() -> None:
    layout = Layout(Path(sys.argv[1]))
    detach()
    os.umask(0o077)
    if only_one(layout):
        supervise(layout)
    else:
        say("another supervisor is at work")


if __name__ == "__main__":
    main()
