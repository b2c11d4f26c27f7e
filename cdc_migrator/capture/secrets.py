"""The files in which the Connect worker finds passwords, certificates and keys."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from cdc_migrator.errors import ConfigurationError


def write(directory: Path, files: Mapping[str, bytes], mode: int = 0o600) -> list[str]:
    """Put these files where the worker can read them; those that changed, by name.

    Args:
        mode: of each file; 0o640 where the worker runs as another user of the same group.

    Raises:
        ConfigurationError: CDCM-SECRETS-DIR: the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        return [name for name, content in files.items() if _put(directory / name, content, mode)]
    except OSError as exc:
        raise ConfigurationError(
            "CDCM-SECRETS-DIR",
            f"the connector's secrets cannot be written to {directory}: {exc.strerror}",
            "Name a directory that this user can write and the Connect worker can read.",
        ) from exc


def of_migration(directory: Path, migration: str) -> list[Path]:
    """What lies there for the connectors of a migration."""
    ours = re.compile(rf"cdcm-{migration}-\d+\.(properties|root\.crt|client\.crt|client\.pk8)")
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if ours.fullmatch(path.name))


def _put(file: Path, content: bytes, mode: int) -> bool:
    """Whether it was not there, or otherwise."""
    if file.exists() and file.read_bytes() == content and file.stat().st_mode & 0o777 == mode:
        return False
    # Written beside and moved, so that the worker never reads half a password; the mode is set
    # before the first byte.
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            os.fchmod(descriptor, mode)
            out.write(content)
        beside.replace(file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return True
