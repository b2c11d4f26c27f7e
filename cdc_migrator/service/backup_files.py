"""The directory of a dump: its manifest with checksums, written last, and its rows counted.

A directory without a manifest is no backup: whoever was killed while making one leaves such.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from io import BufferedIOBase
from pathlib import Path

import msgspec

from cdc_migrator.errors import Failed, Refused

MANIFEST = "MANIFEST.json"
CONTENTS = "restore.list"
_FORMAT = 1
_CHUNK = 1 << 20
_END = b"\\.\n"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a dump.

    Attributes:
        taken_at, position: the moment and the place in the write-ahead log of its snapshot.
        server_version: of the source, as ``server_version_num`` has it.
        files: each file with its size and checksum.
    """

    format: int = _FORMAT
    migration: str
    database: str
    encoding: str
    taken_at: datetime
    position: str
    server_version: int
    tools_version: int
    files: dict[str, tuple[int, str]]

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(size for size, _ in self.files.values())


def size(directory: Path) -> int:
    """Bytes in the files so far."""
    total = 0
    for path in directory.iterdir():
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def make_room(directory: Path) -> None:
    """Have the directory there and empty.

    Raises:
        Refused: CDCM-BACKUP-DIRECTORY: something is in it, or it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        taken = any(directory.iterdir())
    except OSError as error:
        raise Refused(
            "CDCM-BACKUP-DIRECTORY",
            f"{directory} cannot be written ({error.strerror})",
            "Name a directory that this user may write to.",
        ) from None
    if taken:
        whole = (directory / MANIFEST).exists()
        raise Refused(
            "CDCM-BACKUP-DIRECTORY",
            f"{directory} {'holds a backup' if whole else 'is not empty'}",
            "Name a new directory; one without a MANIFEST.json was left by a backup that was "
            "killed, and may be removed.",
        )


def seal(directory: Path, manifest: Callable[[dict[str, tuple[int, str]]], Manifest]) -> Manifest:
    """Write the manifest of all that is in the directory, durably."""
    paths = sorted(path for path in directory.iterdir() if path.is_file())
    made = manifest({path.name: (path.stat().st_size, checksum(path)) for path in paths})
    part = directory / f"{MANIFEST}.part"
    with part.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(directory / MANIFEST)
    number = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
    return made


def read(directory: Path) -> Manifest:
    """The manifest of a dump.

    Raises:
        Refused: CDCM-BACKUP-INCOMPLETE: there is none, so there is no whole backup.
        Failed: CDCM-BACKUP-DAMAGED: it cannot be read.
    """
    try:
        text = (directory / MANIFEST).read_bytes()
    except OSError:
        raise Refused(
            "CDCM-BACKUP-INCOMPLETE",
            f"{directory} holds no backup that was finished: it has no {MANIFEST}",
            "Name the directory of a backup on this machine, or make one with `cdc-migrator "
            "backup create`.",
        ) from None
    try:
        found = msgspec.json.decode(text, type=Manifest)
    except msgspec.MsgspecError:
        raise damaged(directory, f"{MANIFEST} cannot be read") from None
    if found.format != _FORMAT:
        raise damaged(directory, f"{MANIFEST} is of another release")
    return found


def check(directory: Path, manifest: Manifest, observe: Callable[[int], None]) -> None:
    """Compare every file with the manifest.

    Args:
        observe: is told how many bytes are done.

    Raises:
        Failed: CDCM-BACKUP-DAMAGED: one is missing or other than it was.
    """
    done = 0
    for name, (expected, digest) in sorted(manifest.files.items()):
        path = directory / name
        if not path.is_file():
            raise damaged(directory, f"{name} is missing")
        if path.stat().st_size != expected or checksum(path) != digest:
            raise damaged(directory, f"{name} is not what was written")
        done += expected
        observe(done)


def damaged(directory: Path, what: str) -> Failed:
    return Failed(
        "CDCM-BACKUP-DAMAGED",
        f"the backup in {directory} is damaged: {what}",
        "Do not rely on it: make another with `cdc-migrator backup create`.",
    )


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rows(directory: Path, entry: int) -> int | None:
    """The rows in a table's file, by the number of its entry; None where it is packed otherwise
    than pg_dump does by itself.

    Raises OSError, EOFError or zlib's error where it cannot be unpacked.
    """
    plain, packed = directory / f"{entry}.dat", directory / f"{entry}.dat.gz"
    if plain.exists():
        with plain.open("rb") as file:
            return _lines(file)
    if packed.exists():
        with gzip.GzipFile(packed) as unpacked:
            return _lines(unpacked)
    return None


def _lines(file: BufferedIOBase) -> int:
    """The lines of COPY's text before the one that ends it: a row is a line."""
    lines, tail = 0, b""
    for chunk in _chunks(file):
        lines += chunk.count(b"\n")
        tail = (tail + chunk)[-16:]
    behind = tail.rfind(_END)
    return lines - tail[behind:].count(b"\n") if behind >= 0 else lines


def _chunks(file: BufferedIOBase) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def details(manifest: Manifest) -> dict[str, object]:
    """What the account keeps of a manifest."""
    kept = msgspec.to_builtins(manifest)
    return {key: kept[key] for key in ("database", "position", "server_version")} | {
        "files": len(manifest.files)
    }
