"""Has the product in memory, and forks for each verb that `warm` asks for.

Nothing is run here but imports: what a verb finds is what it would have imported itself.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import selectors
import socket
import struct
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

NUMBER = struct.Struct("i")
_LONGEST_REQUEST = 1 << 20
_FILES = 4  # stdin, stdout, stderr, and where its number and its end are told


@dataclass(frozen=True, slots=True)
class Request:
    """A verb that is to be: what `warm` said of it, and its three files."""

    args: list[str]
    env: dict[str, str]
    directory: str
    own_session: bool
    streams: list[int]

    def become(self) -> None:
        """What lies between the fork and the verb's first line."""
        if self.own_session:
            os.setsid()
        for number, file in enumerate(self.streams):
            os.dup2(file, number)
        # Also the files in which the ends of earlier verbs are told.
        os.closerange(3, 1024)
        os.chdir(self.directory)
        os.environ.clear()
        os.environ.update(self.env)
        sys.argv = ["cdc-migrator", *self.args]
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(write_through="PYTHONUNBUFFERED" in self.env)  # type: ignore[union-attr]


def serve(asked: socket.socket) -> Request | None:
    """Fork for each request, and tell of each process its number and how it ended.

    Returns in a process that is to be a verb. None: nobody is there any more to ask.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(asked, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not asked:
                    selector.unregister(key.fileobj)
                    _tell_end(*key.data, pidfd=key.fd)
                    continue
                message, files, _, _ = socket.recv_fds(asked, _LONGEST_REQUEST, _FILES)
                if not message:
                    return None
                *streams, tell = files
                if (pid := os.fork()) == 0:
                    return Request(*json.loads(message), streams)
                for file in streams:
                    os.close(file)
                with suppress(BrokenPipeError):
                    os.write(tell, NUMBER.pack(pid))
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, tell))


def _tell_end(pid: int, tell: int, pidfd: int) -> None:
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):
        os.write(tell, NUMBER.pack(os.waitstatus_to_exitcode(status)))
    os.close(tell)
    os.close(pidfd)


def _finish(code: object) -> NoReturn:
    """End as an interpreter ends, but for taking all apart that was imported."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _import_all() -> None:
    import cdc_migrator

    for module in pkgutil.walk_packages(cdc_migrator.__path__, "cdc_migrator."):
        importlib.import_module(module.name)
    assert threading.active_count() == 1, "a module starts a thread when it is imported"
    gc.collect()
    gc.freeze()


def _main() -> None:
    with socket.socket(fileno=int(sys.argv[1])) as asked:
        _import_all()
        request = serve(asked)
    if request is not None:
        from cdc_migrator.cli.main import main

        request.become()
        try:
            main()
        except SystemExit as end:
            _finish(end.code)


if __name__ == "__main__":
    _main()
