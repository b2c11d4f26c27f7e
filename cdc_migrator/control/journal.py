"""The journal: every state change of the migration, written before it is acted on.

Each row's hash covers its content and the hash of the row before it, so a row that was
altered or removed later is found by `verify`.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
from typing import Any

import orjson
import psycopg
from psycopg.types.json import Jsonb

_FIRST = "0" * 64
_LOCK = 0x43444D32


def _digest(previous: str, number: int, at: str, actor: str, action: str, details: Any) -> str:
    body = orjson.dumps([previous, number, at, actor, action, details], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(body).hexdigest()


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
        number, previous = (last[0] + 1, last[1]) if last else (1, _FIRST)
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
                _digest(previous, number, _instant(at), who, action, normal),
            ),
        )
    return int(number)


def _instant(at: Any) -> str:
    return f"{at.timestamp():.6f}"


def verify(conn: psycopg.Connection) -> int | None:
    """The number of the first entry whose hash or place is wrong, or None if all are right."""
    previous, expected = _FIRST, 1
    rows = conn.execute(
        "SELECT id, at, actor, action, details, previous_hash, hash "
        "FROM cdc_migrator.journal ORDER BY id"
    )
    for number, at, who, action, details, said_previous, said in rows:
        right = _digest(previous, number, _instant(at), who, action, details)
        if number != expected or said_previous != previous or said != right:
            return int(number)
        previous, expected = said, number + 1
    return None
