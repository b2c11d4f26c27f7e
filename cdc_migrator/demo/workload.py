"""The shop's application as a program of its own, and the handle by which the demo holds it.

The DSN comes from the environment, because a command line is public:
``CDC_MIGRATOR_DEMO_DSN=... python -m cdc_migrator.demo.workload --rate 300``; so does that of the
target for writers that follow the routing row: ``CDC_MIGRATOR_DEMO_TARGET_DSN``. It stops on
SIGTERM once the open transactions are finished and prints its summary as one line of JSON; it exits
with 1 if a writer failed, and stops by itself when the process that started it is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, fields, replace
from pathlib import Path

from cdc_migrator.demo.tally import Summary
from cdc_migrator.demo.writers import ALL_KINDS, Settings, Workload
from cdc_migrator.errors import Failed, MigratorError

__all__ = ["ALL_KINDS", "Settings", "Summary", "Workload", "WorkloadProcess", "main"]

DSN_VARIABLE = "CDC_MIGRATOR_DEMO_DSN"
TARGET_VARIABLE = "CDC_MIGRATOR_DEMO_TARGET_DSN"
_CHECK_SECONDS = 0.2
_STOP_SECONDS = 15.0


class WorkloadProcess:
    """The application in a process of its own; a context manager that stops it at the end.

    Args:
        dsn: the source.
        settings: how it behaves.
        log: file that receives what it says on stderr.
        target: where the routing row may lead it to.
    """

    def __init__(self, dsn: str, settings: Settings, log: Path, target: str | None = None) -> None:
        options = asdict(settings) | {"kinds": ",".join(settings.kinds)}
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self._log = log
        self._summary: Summary | None = None
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, *flags, f"--parent={os.getpid()}"],
                env=os.environ
                | {DSN_VARIABLE: dsn}
                | ({TARGET_VARIABLE: target} if target is not None else {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C in the terminal is the demo's to handle
            )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def __enter__(self) -> WorkloadProcess:
        return self

    def __exit__(self, *_: object) -> None:
        # What went wrong before is what matters to the caller.
        with contextlib.suppress(MigratorError):
            self.stop()

    def check(self) -> None:
        """Raise Failed (CDCM-DEMO-WORKLOAD) if the application failed or ended by itself."""
        if self._summary is None and self._process.poll() is not None:
            summary = self._collect()
            reason = summary.failure or "something else told it to"
            self._summary = replace(summary, failure=reason)
        if self._summary is not None and self._summary.failure is not None:
            raise Failed(
                "CDCM-DEMO-WORKLOAD",
                f"the shop's application stopped: {self._summary.failure}",
                f"Read {self._log} and the log of the source database.",
            )

    def stop(self) -> Summary:
        """End it and return what it did; repeatable.

        Raises:
            Failed: CDCM-DEMO-WORKLOAD: a writer had failed, or it did not end when asked to.
        """
        self.check()
        if self._summary is None:
            self._process.terminate()
            self._summary = self._collect()
            self.check()
        return self._summary

    def _collect(self) -> Summary:
        try:
            output, _ = self._process.communicate(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            output, _ = self._process.communicate()
        try:
            return Summary.read(json.loads(output))
        except (ValueError, KeyError, TypeError):
            code = self._process.returncode
            return Summary.silent(f"it ended with {code} and without a summary")


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM, SIGINT, a failure or the end of `--parent`; returns the exit code."""
    parser = argparse.ArgumentParser(description="The shop's application: concurrent writers.")
    parser.add_argument("--parent", type=int, help="stop when this process is not the parent")
    for option in fields(Settings):
        kind = str if option.name == "kinds" else type(option.default)
        default = ",".join(ALL_KINDS) if option.name == "kinds" else option.default
        parser.add_argument(f"--{option.name.replace('_', '-')}", type=kind, default=default)
    options = vars(parser.parse_args(arguments))
    parent = options.pop("parent")
    settings = Settings(**options | {"kinds": tuple(options["kinds"].split(","))})
    if DSN_VARIABLE not in os.environ:
        parser.error(f"{DSN_VARIABLE} is not set: the DSN of the source")

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    workload = Workload(os.environ[DSN_VARIABLE], settings, os.environ.get(TARGET_VARIABLE))
    try:
        workload.start()
        while not stop.wait(_CHECK_SECONDS) and parent in (None, os.getppid()):
            workload.check()
    except Failed as error:
        print(error, file=sys.stderr)  # noqa: T201
    summary = workload.stop()
    print(json.dumps(summary.as_dict()))  # noqa: T201
    return 1 if summary.failure else 0


if __name__ == "__main__":
    raise SystemExit(main())
