"""The account that PostgreSQL runs under. The server refuses root, so root lends it to another.

No account is created: nothing of the stack outlives `stack down --purge`.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cdc_migrator.errors import ConfigurationError

# `postgres` where Debian or another distribution made one, else the account every system has.
CHOICES = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged account of this machine."""

    name: str
    uid: int
    gid: int

    def can_enter(self, directory: Path) -> bool:
        """Whether the account reaches into ``directory``: asked of the kernel, which knows access
        lists and mounts as well as mode bits."""
        return self._succeeds("test", "-x", str(directory))

    def can_run(self, program: Path) -> bool:
        return self._succeeds(str(program), "--version")

    def _succeeds(self, *command: str) -> bool:
        try:
            done = subprocess.run(
                command,
                user=self.uid,
                group=self.gid,
                extra_groups=(),
                cwd="/",
                env={"PATH": os.defpath},
                capture_output=True,
                timeout=30,
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            return False
        return done.returncode == 0


def unprivileged() -> Account | None:
    """The account to run PostgreSQL under, or None when the present one will do."""
    if os.geteuid() != 0:
        return None
    for name in CHOICES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise ConfigurationError(
        "CDCM-STACK-ACCOUNT",
        f"PostgreSQL does not run as root, and there is no account named {' or '.join(CHOICES)}",
        "run as an ordinary user, or create one of these accounts",
    )
