"""One running stack for the whole test session, and fresh databases on its two servers.

CDC_MIGRATOR_TEST_STACK says whether it is `local` or in `containers`; unset, it is in containers
where a Docker engine answers. CDC_MIGRATOR_TEST_STACK_DIR names the directory of a local stack that
is used and left running, for quicker development.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from cdc_migrator.stack import local
from cdc_migrator.stack.local import StackInfo, StackOptions
from tests.support.containers import container_stack, docker_answers

KEPT_VARIABLE = "CDC_MIGRATOR_TEST_STACK_DIR"
PROVIDER_VARIABLE = "CDC_MIGRATOR_TEST_STACK"
PROVIDERS = ("local", "containers")


def provider(environ: Mapping[str, str] = os.environ) -> str:
    """Which of PROVIDERS the session's stack is of. Raises pytest.UsageError for another word."""
    if environ.get(KEPT_VARIABLE):
        return "local"
    if not (said := environ.get(PROVIDER_VARIABLE)):
        return "containers" if docker_answers(environ) else "local"
    if said not in PROVIDERS:
        raise pytest.UsageError(f"{PROVIDER_VARIABLE} is {said!r}: say {' or '.join(PROVIDERS)}")
    return said


@contextmanager
def running_stack(base: Path, **options: object) -> Iterator[StackInfo]:
    """A stack in a new directory below ``base``; nothing of it is left at the end."""
    state_dir = base / "stack"
    try:
        yield local.up(StackOptions(state_dir, **options))  # type: ignore[arg-type]
    finally:
        local.down(state_dir, purge=True)


@pytest.fixture(scope="session")
def stack_provider() -> str:
    """Who runs the session's stack: asked once."""
    return provider()


@pytest.fixture(scope="session")
def stack(stack_provider: str) -> Iterator[StackInfo]:
    """The session's stack: share it, leave it running and leave nothing of yours in it."""
    if kept := os.environ.get(KEPT_VARIABLE):
        yield local.up(StackOptions(Path(kept)))
        return
    base = Path(tempfile.mkdtemp(prefix="cdcm-"))
    base.chmod(0o755)
    try:
        made = container_stack if stack_provider == "containers" else running_stack
        with made(base) as info:
            yield info
    finally:
        shutil.rmtree(base)


@pytest.fixture
def local_stack(stack_provider: str) -> None:
    """For a test that looks at the local stack's processes, logs or files: skips it where the
    session's stack is in containers."""
    if stack_provider == "containers":
        pytest.skip(f"looks into the local stack: {PROVIDER_VARIABLE}=local runs it")


@pytest.fixture
def source_db(stack: StackInfo) -> Iterator[str]:
    """The DSN of an empty database on the source server, dropped with its slots at the end."""
    with fresh_database(stack.source_dsn) as dsn:
        yield dsn


@pytest.fixture
def target_db(stack: StackInfo) -> Iterator[str]:
    """The DSN of an empty database on the target server, dropped at the end."""
    with fresh_database(stack.target_dsn) as dsn:
        yield dsn


@contextmanager
def fresh_database(server_dsn: str) -> Iterator[str]:
    """An empty database on the server of ``server_dsn``."""
    name = f"t_{secrets.token_hex(5)}"
    run(server_dsn, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield urlsplit(server_dsn)._replace(path=f"/{name}").geturl()
    finally:
        drop_slots(server_dsn, name)
        run(server_dsn, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def run(dsn: str, statement: sql.Composed) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


def drop_slots(server_dsn: str, database: str, patience: float = 30) -> None:
    """Drop a database's replication slots, also from under a connector that clings to them."""
    deadline = time.monotonic() + patience
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        while True:
            slots = connection.execute(
                "SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = %s",
                [database],
            ).fetchall()
            if not slots:
                return
            for slot, pid in slots:
                if pid is not None:
                    connection.execute("SELECT pg_terminate_backend(%s, 2000)", [pid])
                try:
                    connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])
                except (psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
                    if time.monotonic() > deadline:
                        raise
