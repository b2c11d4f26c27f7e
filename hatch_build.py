"""Builds the C library of `cdc_migrator/native` when the package is built or installed in place.

The compiler is the machine's own (CC, cc, gcc, clang), else the one in the `ziglang` wheel, where
that is installed. Without any, the package is made without the library: Python then does the same,
at a fraction of the speed, and `cdc-migrator check` says so.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = Path(__file__).parent / "cdc_migrator" / "native"
LIBRARY = SOURCES / "kernel.native"
FLAGS = ("-std=c11", "-O3", "-fPIC", "-shared", "-Wall", "-Wextra", "-Wno-unused-parameter")


def compilers() -> list[list[str]]:
    """The commands that may build it, the preferred one first."""
    named = [os.environ["CC"].split()] if os.environ.get("CC") else []
    found = [[path] for name in ("cc", "gcc", "clang") if (path := shutil.which(name))]
    if importlib.util.find_spec("ziglang") is not None:
        # Without this it builds for the very processor that it runs on.
        found.append([sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline"])
    return named + found


def build() -> str | None:
    """Build the library; why it is not there, or None."""
    said = "there is no C compiler"
    # Uses the standard library alone.
    digest = runpy.run_path(str(SOURCES / "library.py"))["digest"]()
    flags = (*FLAGS, f'-DCDCM_DIGEST="{digest}"')
    sources = [str(path) for path in sorted(SOURCES.glob("*.c"))]
    for command in compilers():
        with tempfile.TemporaryDirectory() as directory:
            made = Path(directory) / LIBRARY.name
            done = subprocess.run(
                [*command, *flags, *sources, "-o", str(made)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                # In place of the former one at once: somebody may have that open.
                fresh = LIBRARY.with_suffix(".new")
                shutil.copyfile(made, fresh)
                fresh.replace(LIBRARY)
                return None
            said = f"{command[0]} does not build it: {done.stderr.strip()[-500:]}"
    return said


class NativeLibrary(BuildHookInterface[Any]):
    """The build hook; see pyproject.toml."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build before the wheel is packed; the wheel is then for this platform alone."""
        why = build()
        if why is not None:
            self.app.display_warning(f"without the C library: {why}")
            return
        build_data["artifacts"].append(f"cdc_migrator/native/{LIBRARY.name}")
        if version == "standard":
            build_data["pure_python"] = False
            build_data["tag"] = _tag()


def _tag() -> str:
    """For any Python 3, and this platform."""
    from packaging.tags import sys_tags

    return f"py3-none-{next(sys_tags()).platform}"


if __name__ == "__main__":
    sys.exit(build())
