"""A program of the user, run without a shell, in a process group of its own.

At its time limit the whole group is killed. It can also be left behind by us when we are killed;
so what it does has to bear being begun again while it is still under way.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from typing import IO

from cdc_migrator.config.hooks import Command
from cdc_migrator.cutover.hooks.base import Context, HookFailed, Moment

_TAIL = 400
_PREFIX = "CDC_MIGRATOR_"
_SECRET = re.compile(rf"{_PREFIX}\w*PASSWORD", re.IGNORECASE)


class CommandHook:
    """See the module."""

    def __init__(self, configured: Command) -> None:
        self.name = configured.name or configured.kind
        self.retries = configured.retries
        self._timeout = configured.timeout.total_seconds()
        self._argv = configured.argv
        self._moments = configured.moments

    def open(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""

    def run(self, moment: Moment, context: Context) -> str | None:
        """See `base.Hook`. Where it is not to be run at `CHECK`, it is looked for."""
        if moment in self._moments:
            return self._start(moment, context)
        if moment is not Moment.CHECK:
            return None
        found = shutil.which(self._argv[0])
        if found is None:
            raise HookFailed(f"there is no program {self._argv[0]}", again=False)
        return f"{found} is there"

    def _start(self, moment: Moment, context: Context) -> str:
        with tempfile.TemporaryFile() as said:
            try:
                process = subprocess.Popen(
                    self._argv,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    env=_environment(moment, context),
                    start_new_session=True,
                )
            except OSError as error:
                raise HookFailed(
                    f"{self._argv[0]} cannot be run ({error.strerror})", again=False
                ) from None
            try:
                code = process.wait(self._timeout)
            except subprocess.TimeoutExpired:
                raise HookFailed(f"it was killed after {self._timeout:g} s{_tail(said)}") from None
            finally:
                if process.returncode is None:  # its time is up, or we are interrupted
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            if code:
                how = f"exit code {code}" if code > 0 else f"signal {-code}"
                raise HookFailed(how + _tail(said))
            return f"done{_tail(said)}"


def _environment(moment: Moment, context: Context) -> dict[str, str]:
    """Ours, without the passwords that may be in it, and what the hook is told."""
    told = {
        "MOMENT": str(moment),
        "SIDE": context.side,
        "MIGRATION": context.migration,
        "ATTEMPT": str(context.attempt),
    }
    for side, parameters in (("SOURCE", context.source), ("TARGET", context.target)):
        for name in ("host", "port", "dbname"):
            told[f"{side}_{name.upper()}"] = parameters.get(name, "")
    ours = {name: value for name, value in os.environ.items() if not _SECRET.fullmatch(name)}
    return {**ours, **{_PREFIX + name: value for name, value in told.items()}}


def _tail(said: IO[bytes]) -> str:
    """The end of what it said, on one line."""
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - _TAIL))
    text = " ".join(said.read().decode(errors="replace").split())
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return f": {printable}" if printable else ""
