"""Verbs as a user types them: each a process of its own, run to its end or in the background."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from cdc_migrator.faultpoints import VARIABLE
from tests.support.warm import warm

CLI = [sys.executable, "-m", "cdc_migrator.cli.main"]


def begin(
    *words: str,
    out: IO[Any],
    err: IO[Any],
    env: Mapping[str, str] | None = None,
    directory: Path | None = None,
    own_session: bool = False,
    from_outside: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a verb, whose output goes to two files and who reads nothing.

    `env` and `directory` are this process's unless they are given. `from_outside`: something looks
    at the process from there, so it has to be started as a user starts it.
    """
    given = dict(os.environ if env is None else env)
    place = directory or Path.cwd()
    if not from_outside and VARIABLE not in given and (ready := warm()):
        return ready.start(words, out.fileno(), err.fileno(), given, place, own_session)
    return subprocess.Popen(
        [*CLI, *words],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        start_new_session=own_session,
        env=given,
        cwd=place,
    )


def typed(
    *words: str,
    env: Mapping[str, str] | None = None,
    directory: Path | None = None,
    from_outside: bool = False,
    seconds: float = 180,
) -> subprocess.CompletedProcess[str]:
    """Run a verb to its end; as `begin`. Raises TimeoutExpired where it takes longer."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = begin(
            *words, out=out, err=err, env=env, directory=directory, from_outside=from_outside
        )
        try:
            code = process.wait(seconds)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(process.args, code, out.read(), err.read())


def plain_environment(**more: str) -> dict[str, str]:
    """This process's environment without what sets our settings, and with `more`."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith("CDC_MIGRATOR_")}
    return ours | more
