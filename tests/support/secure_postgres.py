"""A PostgreSQL server that takes TLS sessions only, by SCRAM or by certificate."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from cdc_migrator.stack import ports, postgres
from cdc_migrator.stack.account import unprivileged
from tests.support.certificates import Authority
from tests.support.private_postgres import end_server
from tests.support.tools import debian_tool

if TYPE_CHECKING:
    from tests.support.secure_stack import SecureStack


@contextmanager
def postgres_server(stack: SecureStack, authority: Authority, side: str) -> Iterator[None]:
    """One side's server, for as long as the block lasts."""
    account = unprivileged()
    base = Path(tempfile.mkdtemp(prefix="cdcm-pg-"))
    base.chmod(0o755)
    as_account: dict[str, Any] = (
        {"user": account.uid, "group": account.gid, "extra_groups": ()} if account else {}
    )
    data, port = base / side, stack.postgres_ports[side]
    try:
        binaries = postgres.locate(_server_with_tls(), account, base)
        postgres.initialise(data, binaries, stack.passwords[side], account)
        postgres.configure(data, side, port, account)
        issued = authority.issue(f"{side}-server")
        for path, name in ((issued.certificate, "server.crt"), (issued.key, "server.key")):
            shutil.copy(path, data / name)
        shutil.copy(stack.authority, data / "root.crt")
        (data / "pg_hba.conf").write_text(
            # Certificates are for one user; everybody else has a password.
            f"hostssl all bycert {ports.HOST}/32 cert map=tests\n"
            f"hostssl replication,all all {ports.HOST}/32 scram-sha-256\n"
        )
        (data / "pg_ident.conf").write_text("tests cdcm bycert\n")
        for name in ("server.crt", "server.key", "root.crt", "pg_hba.conf", "pg_ident.conf"):
            (data / name).chmod(0o600)
            if account is not None:
                os.chown(data / name, account.uid, account.gid)
        given = ("fsync=off", "ssl=on", "ssl_ca_file=root.crt")
        server = subprocess.Popen(
            [
                binaries.directory / "postgres",
                "-D",
                data,
                *(part for setting in given for part in ("-c", setting)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=data,
            **as_account,
        )
        try:
            _until_postgres(stack, side, server)
            yield
        finally:
            server.send_signal(signal.SIGTERM)
            end_server(server)
    finally:
        shutil.rmtree(base)


def _until_postgres(stack: SecureStack, side: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            stack.administer(side, "SELECT 1")
        except psycopg.OperationalError:
            assert server.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.1)
        else:
            return


def _server_with_tls() -> Path:
    """The directory of a server that was built with it: Debian's."""
    for found in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True):
        return found.parent
    with suppress(AssertionError):
        return debian_tool("postgresql-15", "usr/lib/postgresql/15/bin/postgres").parent
    pytest.skip("no PostgreSQL server that was built with TLS: install one")
