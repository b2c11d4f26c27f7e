"""The supervisor seen from outside: found, started, asked, stopped, and what it left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

import cdc_migrator
from cdc_migrator.errors import Failed
from cdc_migrator.stack import logs, processes, records
from cdc_migrator.stack.layout import Layout
from cdc_migrator.stack.progress import Talk
from cdc_migrator.stack.records import Plan, SupervisorRecord

START_SECONDS = 20.0
STOP_SECONDS = 80.0
TAIL_LINES = 15


def find(layout: Layout) -> psutil.Process | None:
    record = records.read(layout.supervisor, SupervisorRecord)
    return processes.alive(record.process) if record else None


def start(layout: Layout) -> None:
    layout.supervisor.unlink(missing_ok=True)
    package = str(Path(cdc_migrator.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    log = layout.log("supervisor")
    with log.open("ab") as out:
        subprocess.run(
            # -P: the working directory holds folders that could pass for packages.
            [sys.executable, "-P", "-m", "cdc_migrator.stack.supervisor", str(layout.root)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=layout.root,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
    deadline = time.monotonic() + START_SECONDS
    while find(layout) is None:
        if time.monotonic() > deadline:
            raise Failed(
                "CDCM-STACK-SUPERVISOR",
                "the supervisor did not start" + log_end(logs.tail(log, TAIL_LINES)),
                f"see {log}",
            )
        time.sleep(0.02)


def retry_failed(layout: Layout) -> None:
    record = records.read(layout.supervisor, SupervisorRecord)
    failed = [n for n, c in record.children.items() if c.state == "failed"] if record else []
    supervisor = find(layout)
    if not failed or supervisor is None:
        return
    supervisor.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        record = records.read(layout.supervisor, SupervisorRecord)
        if record and all(record.children[name].state != "failed" for name in failed):
            return
        time.sleep(0.05)


def stop(supervisor: psutil.Process, at_once: bool) -> None:
    """Have everything stopped in good order; returns when the supervisor ended.

    Args:
        at_once: as of a machine that loses its power; for data that nobody needs any more.
    """
    number = signal.SIGQUIT if at_once else signal.SIGTERM
    processes.stop(supervisor, [(number, STOP_SECONDS)])


def raise_if_dead(layout: Layout) -> None:
    record = records.read(layout.supervisor, SupervisorRecord)
    if record is None or processes.alive(record.process) is None:
        raise Failed(
            "CDCM-STACK-SUPERVISOR",
            "the supervisor ended" + log_end(logs.tail(layout.log("supervisor"), TAIL_LINES)),
            "run `cdc-migrator stack up` again",
        )
    for name, child in record.children.items():
        if child.state == "failed":
            last = child.deaths[-1]
            raise Failed(
                "CDCM-STACK-CHILD",
                f"{name} {child.reason}; at last it {last.cause}"
                + log_end(last.log_tail[-TAIL_LINES:]),
                "mend what its log tells and run `cdc-migrator stack up` again, or begin anew "
                "with `cdc-migrator stack down --purge`",
            )


def log_end(lines: tuple[str, ...]) -> str:
    return ". The end of its log:\n  " + "\n  ".join(lines) if lines else ""


def stop_orphans(layout: Layout, talk: Talk, at_once: bool = False) -> None:
    """End children that a killed supervisor left behind: by recorded process, and by their command
    line, in case it was killed before it could record one."""
    plan = records.read(layout.plan, Plan)
    if plan is None:
        return
    record = records.read(layout.supervisor, SupervisorRecord)
    for stage in sorted({spec.stop_stage for spec in plan.children}):
        stoppers = []
        for spec in plan.children:
            if spec.stop_stage != stage:
                continue
            child = record.children.get(spec.name) if record else None
            known = processes.alive(child.process) if child else None
            found = {p.pid: p for p in processes.running_command(spec.command)}
            if known is not None:
                found[known.pid] = known
            signals = [(signal.Signals(number), s) for number, s in spec.stop_signals[at_once:]]
            for process in found.values():
                talk.say(f"stopping {spec.name}, left by a killed supervisor")
                stoppers.append(threading.Thread(target=processes.stop, args=(process, signals)))
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join()
