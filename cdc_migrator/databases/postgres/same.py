"""Whether two sessions are in one database, by whatever names they came there."""

from __future__ import annotations

import psycopg

_WHERE = "SELECT pg_postmaster_start_time(), current_database()"


def one_database(one: psycopg.Connection, other: psycopg.Connection) -> bool:
    """No two servers have started in the same microsecond."""
    return one.execute(_WHERE).fetchone() == other.execute(_WHERE).fetchone()
