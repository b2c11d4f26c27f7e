"""The file from which Connect's file config provider takes the source's password."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from cdc_migrator.capture.connector import secrets_text
from cdc_migrator.errors import ConfigurationError


def path(directory: Path, connector: str) -> Path:
    """Where the secrets of a connector lie."""
    return directory / f"{connector}.properties"


def write(directory: Path, connector: str, password: str, mode: int = 0o600) -> Path:
    """Put the password where the worker can read it; nothing is changed if it is there.

    Args:
        mode: of the file; 0o640 where the worker runs as another user of the same group.

    Raises:
        ConfigurationError: CDCM-SECRETS-DIR: the directory cannot be written.
    """
    file = path(directory, connector)
    text = secrets_text(password)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        if file.exists() and file.read_text() == text and file.stat().st_mode & 0o777 == mode:
            return file
        # Written beside and moved, so that the worker never reads half a password; the mode is
        # set before the first byte.
        beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as out:
                os.fchmod(descriptor, mode)
                out.write(text)
            beside.replace(file)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise ConfigurationError(
            "CDCM-SECRETS-DIR",
            f"the connector's secrets cannot be written to {directory}: {exc.strerror}",
            "Name a directory that this user can write and the Connect worker can read.",
        ) from exc
    return file


def remove(directory: Path, connector: str) -> bool:
    """Take the file away; returns whether there was one."""
    with contextlib.suppress(FileNotFoundError):
        path(directory, connector).unlink()
        return True
    return False
