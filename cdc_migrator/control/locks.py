"""One process of a kind at a time: session locks on the target, gone when their session is."""

from __future__ import annotations

import time
from enum import IntEnum

import psycopg

# A session that was closed or killed keeps its locks until its server process has noticed.
_LINGER_SECONDS = 3.0
_LOOK_SECONDS = 0.02
_CLASS = 0x4344  # "CD": the first half of our advisory lock keys


class Role(IntEnum):
    """What a process does that no second one may do at the same time."""

    CAPTURE = 1
    SNAPSHOT = 2
    LOAD = 3
    SCHEMA = 4
    RECONCILE = 5
    FENCE = 6
    CUTOVER = 7
    # Held by a command that compares, from before it waits for RECONCILE: who compares in the
    # background gives way to it.
    RECONCILE_COMMAND = 15


def try_lock(conn: psycopg.Connection, role: Role, patience: float = _LINGER_SECONDS) -> bool:
    """Take the lock for as long as this session lives; False if another session has it.

    Args:
        patience: seconds for which the other session is given time to end.
    """
    until = time.monotonic() + patience
    while True:
        row = conn.execute("SELECT pg_try_advisory_lock(%s, %s)", (_CLASS, int(role))).fetchone()
        if row == (True,):
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(_LOOK_SECONDS)


def wait_lock(conn: psycopg.Connection, role: Role) -> None:
    """Like `try_lock`, but waits as long as the session's ``lock_timeout`` allows."""
    conn.execute("SELECT pg_advisory_lock(%s, %s)", (_CLASS, int(role)))


def unlock(conn: psycopg.Connection, role: Role) -> None:
    """Give the lock back before the session ends."""
    conn.execute("SELECT pg_advisory_unlock(%s, %s)", (_CLASS, int(role)))


def taken(conn: psycopg.Connection, role: Role) -> bool:
    """Whether some session has the lock."""
    row = conn.execute(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND (classid, objid, objsubid) = (%s, %s, 2))",
        (_CLASS, int(role)),
    ).fetchone()
    return bool(row and row[0])
