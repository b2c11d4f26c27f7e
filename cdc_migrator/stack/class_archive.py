"""Class archives: what one life of a JVM has parsed and verified, later ones map into memory.

Broker and worker start in half the time. The first life that ends in good order leaves its archive
in the cache. A JVM that an archive does not fit does without (JEP 350; ``-Xshare:auto``).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cdc_migrator.stack.java import Java


@dataclass(frozen=True, slots=True)
class Archive:
    """Of one JVM.

    Attributes:
        options: by which it takes its archive, or leaves one.
        leaves: what it writes when it ends, and where that is kept; None: nothing.
    """

    options: tuple[str, ...] = ()
    leaves: tuple[str, str] | None = None


def find(cache: Path, name: str, java: Java, class_path: Sequence[Path], home: Path) -> Archive:
    """The archive of the JVM `name`, or how it leaves one in its directory `home`."""
    runtime = java.executable.resolve()
    # A runtime that was cut down for a wheel has none of its own to build upon.
    if not (runtime.parent.parent / "lib" / "server" / "classes.jsa").exists():
        return Archive()
    told = (str(runtime), runtime.stat().st_mtime_ns, *map(str, class_path))
    key = hashlib.sha256(repr(told).encode()).hexdigest()[:16]
    kept = cache / "archives" / f"{name}-{key}.jsa"
    if kept.exists():
        return Archive((f"-XX:SharedArchiveFile={kept}", "-Xshare:auto", "-Xlog:cds=off"))
    left = home / f"{name}.jsa"
    return Archive((f"-XX:ArchiveClassesAtExit={left}", "-Xlog:cds=off"), (str(left), str(kept)))


def keep(leaves: tuple[str, str]) -> None:
    """Put what a JVM has left where others find it, in place of what is there of its name."""
    left, kept = map(Path, leaves)
    # Without it others only start more slowly.
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        arriving = kept.with_suffix(f".{os.getpid()}")
        shutil.copyfile(left, arriving)
        arriving.replace(kept)
        for former in kept.parent.glob(f"{kept.name.partition('-')[0]}-*.jsa"):
            if former != kept:
                former.unlink()
        left.unlink()
