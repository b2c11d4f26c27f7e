"""Start a snapshot holder and wait for its answer; the holder itself is in `holder`."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec

from cdc_migrator.capture.holder import Answer, Request
from cdc_migrator.errors import ConfigurationError, Failed, MigratorError, Refused

_KINDS: dict[str, type[MigratorError]] = {
    kind.__name__: kind for kind in (ConfigurationError, Refused, Failed)
}


def log_path(state_dir: Path, migration: str) -> Path:
    """Where a migration's snapshot holder writes its log."""
    return state_dir / f"holder-{migration}.log"


def hold_snapshot(request: Request, state_dir: Path) -> int:
    """Start a holder that outlives this process; its process id, once the slot is there.

    Raises:
        MigratorError: what the holder met, e.g. Failed CDCM-SLOT-TIMEOUT; or
            Failed CDCM-HOLDER-DIED: it ended without a word.
    """
    log = log_path(state_dir, request.migration)
    state_dir.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "cdc_migrator.capture.holder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(request))
        process.stdin.close()
        # The holder's own limit comes first: it knows better what it waited for. It may have to
        # wait for another holder's limit before its own begins.
        line = _first_line(process.stdout.fileno(), 2 * request.patience + 120)
    except BrokenPipeError:
        line = b""
    except BaseException:
        process.terminate()
        raise
    finally:
        process.stdout.close()
        # Takes the exit status whenever it comes, so that no zombie stays while we live.
        threading.Thread(target=process.wait, daemon=True).start()
    if not line:
        process.terminate()
        raise Failed(
            "CDCM-HOLDER-DIED",
            "the snapshot holder ended before it had made the slot",
            f"See the end of {log}, then run the same command again.",
        )
    answer = msgspec.json.decode(line, type=Answer)
    if answer.error is not None:
        kind = _KINDS.get(answer.error["kind"], Failed)
        raise kind(answer.error["code"], answer.error["cause"], answer.error["remedy"])
    return answer.pid


def _first_line(pipe: int, patience: float) -> bytes:
    """The first line of a pipe, or nothing if none came within `patience` seconds."""
    deadline = time.monotonic() + patience
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return b""
            piece = os.read(pipe, 4096)
            if not piece:
                return b""
            line += piece
    return line
