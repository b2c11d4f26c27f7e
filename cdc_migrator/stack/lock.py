"""The jar lock: which files the local stack runs on, byte for byte. Fetches nothing.

A lock lists coordinates, the path inside any Maven repository, the size and the SHA-256 of each
file, and no repository's address: the same lock serves the central repository and a mirror.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from cdc_migrator.errors import ConfigurationError

COMMITTED = Path(__file__).with_name("jars.lock.json")


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a Maven repository. ``path`` is relative to the repository's base, ``size`` in
    bytes, ``sha256`` in hexadecimal."""

    coordinates: str
    path: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        path = PurePosixPath(self.path)
        # The path becomes a file name in the cache: a lock must not be able to write beside it.
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise ValueError(f"{self.coordinates}: {self.path!r} is not a path inside a repository")

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


@dataclass(frozen=True, slots=True)
class JarLock:
    """``class_path``: jars of the broker and of the Connect worker, in class-path order.
    ``plugins``: archives (tar.gz) that are unpacked into the worker's plugin directory."""

    class_path: tuple[Artifact, ...]
    plugins: tuple[Artifact, ...]
    schema_version: int = 1

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        return self.class_path + self.plugins


def read(path: Path = COMMITTED) -> JarLock:
    """The lock in ``path``. Raises ConfigurationError when it is missing or not a lock."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=JarLock)
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise ConfigurationError(
            "CDCM-STACK-LOCK",
            f"the jar lock {path} cannot be used: {error}",
            "restore the file from the package, or write it anew with "
            "`python -m cdc_migrator.stack.lock_jars`",
        ) from error


def write(lock: JarLock, path: Path = COMMITTED) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(lock), indent=1) + b"\n")
