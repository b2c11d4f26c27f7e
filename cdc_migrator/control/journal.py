"""The journal: every state change of the migration, written before it is acted on.

Each entry is chained to the one before it (`control.chain`), so an entry that was altered or
removed later is found by `verify`. No value of a row and no password is ever written here.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator
from typing import Any

import orjson
import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from cdc_migrator.control import chain
from cdc_migrator.control.chain import Checked, Entry

_LOCK = 0x43444D32


def actor() -> str:
    """Who acts: user, host and process id."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}:{os.getpid()}"


def write(conn: psycopg.Connection, action: str, **details: Any) -> int:
    """Append one entry in a transaction (the caller's, if one is open); returns its number."""
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        last = conn.execute(
            "SELECT id, hash FROM cdc_migrator.journal ORDER BY id DESC LIMIT 1"
        ).fetchone()
        number, previous = (last[0] + 1, last[1]) if last else (1, chain.FIRST)
        row = conn.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        at = row[0]
        who = actor()
        normal = orjson.loads(orjson.dumps(details, default=str))
        conn.execute(
            "INSERT INTO cdc_migrator.journal VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (
                number,
                at,
                who,
                action,
                Jsonb(normal),
                previous,
                chain.digest(previous, number, at, who, action, normal),
            ),
        )
    return int(number)


_ENTRIES = (
    "SELECT id AS number, at, actor, action, details, previous_hash AS previous, hash "
    "FROM cdc_migrator.journal ORDER BY id"
)


def entries(conn: psycopg.Connection) -> Iterator[Entry]:
    """All entries, in their order."""
    with conn.cursor(row_factory=class_row(Entry)) as cursor:
        yield from cursor.execute(_ENTRIES)


def verify(conn: psycopg.Connection, known: str | None = None) -> Checked:
    """Whether every entry is as it was written and where it was; `known` as in `chain.check`."""
    return chain.check(entries(conn), known)
