"""A snapshot that other sessions can read under (SET TRANSACTION SNAPSHOT)."""

from __future__ import annotations

import psycopg

_OPEN = (
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "
    "SELECT pg_current_snapshot()::text, pg_export_snapshot()"
)


def export(conn: psycopg.Connection) -> tuple[str, str]:
    """Begin a transaction that reads under a new snapshot: its text, and its exported name.

    It lasts as long as the transaction does.
    """
    cursor = conn.execute(_OPEN)
    cursor.nextset()
    row = cursor.fetchone()
    assert row is not None
    return str(row[0]), str(row[1])
