"""The markers that say where a side was left and where it was not: which of them are applied.

Written by whoever applies, in the transaction that applied everything in front of the marker.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

# Those that somebody waits for. A barrier is none of them: it is met between two batches.
KEPT = frozenset({"fence", "unfence", "start", "ping"})
APPLIED = "cdc_migrator_applied"
_DAYS = 30


def applied(conn: psycopg.Connection, stream: str, markers: Sequence[tuple[str, str, int]]) -> None:
    """Write (token, kind, commit position) down in the caller's transaction; tell who listens."""
    for token, kind, position in markers:
        conn.execute(
            "WITH one AS (INSERT INTO cdc_migrator.marker_applied "
            "(token, stream, kind, commit_position) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT DO NOTHING RETURNING token) SELECT pg_notify(%s, token) FROM one",
            (token, stream, kind, position, APPLIED),
        )


def write(
    conn: psycopg.Connection, migration: str, kind: str, token: str, leg: int | None = None
) -> None:
    """Send a marker down the stream that captures from this database.

    One of the kind `start` says that from its commit on the stream's changes count, on this leg;
    nothing else may be written to captured tables in its transaction.
    """
    tell(conn, migration, kind, token, None if leg is None else {"leg": leg})


def tell(
    conn: psycopg.Connection,
    migration: str,
    kind: str,
    token: str,
    details: Mapping[str, Any] | None,
) -> None:
    """Send a marker that says something."""
    conn.execute(
        "INSERT INTO cdc_migrator.marker (migration, kind, token, details) VALUES (%s, %s, %s, %s)",
        (migration, kind, token, None if details is None else Jsonb(dict(details))),
    )


def prune(conn: psycopg.Connection, migration: str, kind: str, days: int) -> None:
    """Remove markers that were sent long ago: the stream has them from the log."""
    conn.execute(
        "DELETE FROM cdc_migrator.marker WHERE migration = %s AND kind = %s "
        "AND at < now() - make_interval(days => %s)",
        (migration, kind, days),
    )


def told_since(
    conn: psycopg.Connection, migration: str, kind: str, since: datetime
) -> list[tuple[str, dict[str, Any]]]:
    """Token and details of what was sent after this moment of the source, in its order."""
    return conn.execute(
        "SELECT token, details FROM cdc_migrator.marker "
        "WHERE migration = %s AND kind = %s AND at > %s AND details IS NOT NULL ORDER BY id",
        (migration, kind, since),
    ).fetchall()


def is_applied(conn: psycopg.Connection, token: str) -> bool:
    """Whether everything up to this marker is applied."""
    row = conn.execute(
        "SELECT true FROM cdc_migrator.marker_applied WHERE token = %s", (token,)
    ).fetchone()
    return row is not None


def listen(conn: psycopg.Connection) -> None:
    """Be told of markers from now on, for `wait`."""
    conn.execute(f"LISTEN {APPLIED}")


def wait(conn: psycopg.Connection, token: str, seconds: float) -> bool:
    """Wait for a marker on a session that listens; whether it was applied in time."""
    until = time.monotonic() + seconds
    while not is_applied(conn, token):
        left = until - time.monotonic()
        if left <= 0:
            return False
        # Looked at again now and then, whatever is told.
        for _ in conn.notifies(timeout=min(left, 0.25), stop_after=1):
            pass
    return True


def tidy(conn: psycopg.Connection) -> None:
    """Forget markers of long ago."""
    conn.execute(
        "DELETE FROM cdc_migrator.marker_applied "
        "WHERE applied_at < now() - make_interval(days => %s)",
        (_DAYS,),
    )
