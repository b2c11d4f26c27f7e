"""Log files of the stack: their last lines, and following them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

TAIL_WINDOW = 256 * 1024
ROTATE_BYTES = 64 * 1024 * 1024


def tail(path: Path, lines: int) -> tuple[str, ...]:
    """The last ``lines`` lines (of the last 256 KiB); nothing for a missing file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_WINDOW))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ()
    return tuple(text.splitlines()[-lines:]) if lines > 0 else ()


def follow(path: Path, lines: int, poll: float = 0.2) -> Iterator[str]:
    """The last ``lines`` lines, then each new one as it comes; ends when the file is gone."""
    position = path.stat().st_size if path.exists() else 0
    yield from tail(path, lines)
    rest = b""
    while path.exists():
        size = path.stat().st_size
        if size < position:  # begun anew by rotation
            position, rest = 0, b""
        if size == position:
            time.sleep(poll)
            continue
        with path.open("rb") as file:
            file.seek(position)
            rest += file.read()
            position = file.tell()
        *whole, rest = rest.split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in whole)


def rotate(path: Path) -> None:
    """Set a big log aside, keeping one older one. Only while nobody writes it."""
    if path.exists() and path.stat().st_size > ROTATE_BYTES:
        path.replace(path.with_suffix(".log.1"))
