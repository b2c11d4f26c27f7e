"""Write a document to a file: whole, or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from cdc_migrator.errors import Failed


def write_file(path: Path, content: bytes) -> None:
    """Put `content` at `path`, in place of what is there; directories above it are made.

    Raises Failed: CDCM-OUTPUT-FILE.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise Failed(
            "CDCM-OUTPUT-FILE",
            f"{path} cannot be written: {error.strerror}",
            "Name another file.",
        ) from None
