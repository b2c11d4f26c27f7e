"""Verbs as processes that need not import anything: forked from one that has imported it all.

Most of what a short verb costs is importing. A verb that is started here is a process of its own
as any other, with its own arguments, environment, files, session and end; but it is forked from a
process (`warm_server`) that has every module of the product in memory and has run none of it. What
is read while a module is imported (a fault's place), and what looks at a process from outside (its
command line, its memory), needs a start as a user makes it.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import warm_server
from tests.support.warm_server import NUMBER


class Forked(subprocess.Popen[bytes]):
    """A verb's process, to be waited for and struck like any other. It has no pipes."""

    def __init__(self, args: Sequence[str], told: int) -> None:
        # Not Popen's own: it would start a process.
        self.args, self.returncode = list(args), None  # type: ignore[assignment]
        self.stdin = self.stdout = self.stderr = None
        self._told, self._reading = told, threading.Lock()
        self.pid = self._number()

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def _ended(self, timeout: float | None) -> int | None:
        until = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            with self._reading, selectors.DefaultSelector() as selector:
                if self.returncode is not None:
                    break
                selector.register(self._told, selectors.EVENT_READ)
                # In turns: other threads wait for this process, too.
                left = 0.1 if until is None else min(0.1, max(0.0, until - time.monotonic()))
                if selector.select(left):
                    self.returncode = self._number()
                    os.close(self._told)
            if until is not None and time.monotonic() >= until:
                break
        return self.returncode

    def _number(self) -> int:
        read = os.read(self._told, NUMBER.size)
        assert read, "the process that verbs are forked from has ended"
        return int(NUMBER.unpack(read)[0])


class Warm:
    """The process that verbs are forked from; it ends with `close`, or with this one."""

    def __init__(self) -> None:
        self._ask, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", warm_server.__name__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                cwd=Path(__file__).parents[2],
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def start(
        self,
        args: Sequence[str],
        out: int,
        err: int,
        env: Mapping[str, str],
        directory: Path,
        own_session: bool,
    ) -> Forked:
        """`cdc-migrator` with these arguments; its output goes to the files `out` and `err`."""
        told, tell = os.pipe()
        request = json.dumps([list(args), dict(env), str(directory), own_session])
        with Path(os.devnull).open("rb") as nothing:
            files = [nothing.fileno(), out, err, tell]
            socket.send_fds(self._ask, [request.encode()], files)
        os.close(tell)
        return Forked(["cdc-migrator", *args], told)

    def close(self) -> None:
        self._ask.close()
        self._process.wait(20)


_running: Warm | None = None
_starting = threading.Lock()
_on = False


def warm() -> Warm | None:
    """The process that this one's verbs are forked from, made when it is first asked for.

    None where verbs are started as a user starts them: outside of the tests (proofs, benchmarks),
    and where a process cannot be watched by a file.
    """
    global _running  # noqa: PLW0603 - one for the whole process
    with _starting:
        if _on and _running is None:
            _running = Warm()
        return _running


@pytest.fixture(scope="session", autouse=True)
def verbs_start_warm() -> Iterator[None]:
    """`warm` is on for the session."""
    global _on, _running  # noqa: PLW0603
    _on = hasattr(os, "pidfd_open")
    yield
    with _starting:
        _on = False
        if _running is not None:
            _running.close()
            _running = None
