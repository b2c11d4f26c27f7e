"""Change tables under locks that nobody is made to wait for: for a moment only, again and again.

A trigger's lock waits for the table's open writers and makes new ones wait behind it; so nobody
is held up longer than one try lasts.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import psycopg
from psycopg import sql


def briefly(
    conn: psycopg.Connection,
    statements: Sequence[sql.Composed],
    lock_milliseconds: int,
    patience: float,
) -> bool:
    """Run the statements in one transaction, none of which waits longer than that for a lock.

    Args:
        conn: an autocommit session without an open transaction.
        patience: seconds for which it is tried again.

    Returns:
        False if the locks were not to be had within `patience`; nothing is done then.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            with conn.transaction():
                conn.execute(f"SET LOCAL lock_timeout = {lock_milliseconds:d}")
                for statement in statements:
                    conn.execute(statement)
            return True
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if time.monotonic() > deadline:
                return False
            time.sleep(random.uniform(0.05, 0.5))
