"""A real PgBouncer of its own for a test, in front of one database."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from cdc_migrator.stack import ports
from cdc_migrator.stack.account import unprivileged
from tests.support.tools import debian_tool


@dataclass(frozen=True, slots=True)
class Bouncer:
    """Where it is.

    Attributes:
        config: pgbouncer.ini, whose database is ``shop``.
        application: connection string for applications.
        console, watcher: of the console, as an administrator and as one who may only look.
    """

    config: Path
    application: str
    console: str
    watcher: str


@contextmanager
def bouncer(database: str, pool_mode: str = "transaction") -> Iterator[Bouncer]:
    """One in front of the database behind this connection string."""
    program = debian_tool("pgbouncer", "usr/sbin/pgbouncer", "libc-ares2", "libevent-2.1-7")
    base = Path(tempfile.mkdtemp(prefix="cdcm-bouncer-"))
    base.chmod(0o755)
    account = unprivileged()  # it refuses root, and may not read root's cache
    (port,) = ports.choose(1)
    at = conninfo_to_dict(database)
    config = base / "pgbouncer.ini"
    config.write_text(
        "; in front of the shop\n[databases]\n"
        f"shop = host={at['host']} port={at['port']} dbname={at['dbname']} user={at['user']} "
        f"password={at['password']} pool_size=4\n"
        f"other = host={at['host']} port={at['port']} dbname={at['dbname']}\n\n"
        f"[pgbouncer]\nlisten_addr = {ports.HOST}\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = trust\nauth_file = {base / 'users'}\nadmin_users = admin\n"
        f"stats_users = watcher\npool_mode = {pool_mode}\nlogfile = {base / 'log'}\n"
    )
    (base / "users").write_text('"admin" ""\n"watcher" ""\n"app" ""\n')
    if program.is_relative_to("/usr"):
        mine, libraries = program, []
    else:
        mine = Path(shutil.copy2(program, base / "pgbouncer"))
        libraries = list(program.parents[2].glob("usr/lib/*-linux-gnu"))
        for library in (one for place in libraries for one in place.glob("*.so*")):
            shutil.copy2(library, base / library.name)
    for path in (base, *base.iterdir()):
        if account is not None:
            os.chown(path, account.uid, account.gid)
    process = subprocess.Popen(
        [mine, config],
        cwd=base,
        env={"PATH": os.defpath, "LD_LIBRARY_PATH": str(base)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=() if account else None,
    )
    reached = f"host={ports.HOST} port={port}"
    found = Bouncer(
        config,
        f"{reached} user=app dbname=shop",
        f"{reached} user=admin",
        f"{reached} user=watcher",
    )
    try:
        _wait_for(process, f"{found.console} dbname=pgbouncer", base / "log")
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        shutil.rmtree(base)


def _wait_for(process: subprocess.Popen[bytes], console: str, log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(console, autocommit=True, connect_timeout=5).close()
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text() if log.exists() else "it ended"
            assert time.monotonic() < deadline, "PgBouncer does not answer"
            time.sleep(0.05)
        else:
            return
