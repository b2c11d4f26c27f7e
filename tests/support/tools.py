"""Programs that some tests need and the lock file cannot hold: the machine's own, else Debian's.

A package is fetched with the machine's own `apt-get` and only unpacked, into the user's cache:
nothing is installed, and no rights are needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import platformdirs
import pytest

CACHE = platformdirs.user_cache_path("cdc-migrator") / "tools"


def promtool() -> Path:
    """Prometheus' checker of rules; see `debian_tool`."""
    return debian_tool("prometheus", "usr/bin/promtool")


def debian_tool(package: str, path: str, *more: str) -> Path:
    """The program at `path` of a Debian package: the one on PATH, else out of the package.

    Args:
        more: packages of libraries, unpacked beside it (below ``usr/lib`` of the same root).

    Skips the test where the program is not there and apt is not, either.
    """
    name = Path(path).name
    there = shutil.which(name)
    if there is not None:
        return Path(there)
    root = CACHE / package
    if not (root / path).exists():
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            pytest.skip(f"{name} is not on PATH, and no apt to fetch it: install {package}")
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            unpacked = _unpack(Path(scratch), [package, *more])
            with suppress(OSError):  # another worker was faster; its tree is as good
                unpacked.rename(root)
    assert (root / path).exists(), f"{package} has no {path}"
    return root / path


def _unpack(scratch: Path, packages: list[str]) -> Path:
    if _apt(scratch, "download", *packages).returncode:
        # No package lists, or stale ones, and perhaps no right to renew them: lists of our own.
        (scratch / "lists" / "partial").mkdir(parents=True)
        lists = f"Dir::State::Lists={scratch / 'lists'}"
        for command in (("update",), ("download", *packages)):
            done = _apt(scratch, "-o", lists, *command)
            assert done.returncode == 0, f"apt-get {command[0]}: {done.stderr}"
    root = scratch / "root"
    for archive in scratch.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", archive, root], check=True, timeout=120)
    return root


def _apt(scratch: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # As root, apt would fetch as a user that may not write here, and warn about it.
        ["apt-get", "-q", "-o", "APT::Sandbox::User=", "-o", f"Dir::Cache={scratch}", *arguments],
        cwd=scratch,
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
