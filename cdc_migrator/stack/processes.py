"""Processes told apart from later ones that were given the same number: by their start time."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

# Start times of one process, computed in two processes, differ when the clock was set in between.
TOLERANCE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Identity:
    """``started`` is seconds since the epoch."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Identity:
        """The identity of a running process. Raises psutil.NoSuchProcess."""
        return cls(pid, psutil.Process(pid).create_time())


def alive(identity: Identity | None) -> psutil.Process | None:
    """The process while it runs; None for one that ended, also when nobody collected it yet."""
    if identity is None:
        return None
    try:
        process = psutil.Process(identity.pid)
        if abs(process.create_time() - identity.started) > TOLERANCE_SECONDS:
            return None
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except psutil.NoSuchProcess:
        return None


def running_command(command: Sequence[str]) -> list[psutil.Process]:
    """Processes started with exactly this command line, which names a file of one stack's own."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cmdline() == list(command):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def stop(
    process: psutil.Process, signals: Sequence[tuple[signal.Signals, float]], poll: float = 0.05
) -> bool:
    """Send each signal and give the process that many seconds; SIGKILL at the end. Returns
    whether it ended."""
    for number, seconds in (*signals, (signal.SIGKILL, 5.0)):
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            return True
        if gone_within(process, seconds, poll):
            return True
    return False


def gone_within(process: psutil.Process, seconds: float, poll: float = 0.05) -> bool:
    """Whether the process ended in time. Not `Process.wait`: the dead child of a process that
    does not collect it would count as alive."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(poll)


def memory(process: psutil.Process) -> int | None:
    """Bytes used by a process and its descendants, shared pages counted once where the system
    tells (PostgreSQL's backends share most of theirs)."""
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            try:
                full = one.memory_full_info()
                total += getattr(full, "pss", full.rss)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
    except psutil.NoSuchProcess:
        return None
    return total
