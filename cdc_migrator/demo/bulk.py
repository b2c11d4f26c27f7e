"""A supplier's price list: one large transaction that stays open while small ones commit.

Each run loads a new batch in steps, and within the same steps changes the batch before it (new
prices on some lines, new keys on others), writes to the table without a key, and at the end
deletes what is older. So a connection that is cut anywhere in it cuts every kind of change.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from cdc_migrator.demo import ledger

KIND = "bulk"
_STEPS = 20
_KEY_SHIFT = 10_000_000


def run(
    conn: psycopg.Connection,
    rows: int,
    seconds: float,
    keys: int,
    pause: Callable[[float], bool],
) -> bool:
    """Make one large transaction; the caller commits it.

    Args:
        rows: about how many rows it inserts, updates and deletes together, from the second
            run on (the first finds only what the shop came with to change and delete).
        seconds: how long it stays open, in pauses between its steps.
        keys: one line in so many of the batch before gets a new key.
        pause: waits so many seconds and returns whether to stop; a stop ends with what is done.

    Returns:
        True: there is always something to do.
    """
    lines = max(_STEPS, rows // 3)
    ((previous, batch),) = conn.execute(
        "SELECT max(batch), nextval('shop_ledger.names') FROM shop.import_lines"
    ).fetchall()
    for step in range(_STEPS):
        values = {
            "batch": batch,
            "previous": previous,
            "first": step * lines // _STEPS + 1,
            "last": (step + 1) * lines // _STEPS,
            "shift": _KEY_SHIFT,
            "keys": keys,
        }
        for statement in _STATEMENTS:
            conn.execute(statement, values)
        if pause(seconds / _STEPS):
            break
    conn.execute("DELETE FROM shop.import_lines WHERE batch < %s", (previous,))
    conn.execute("SELECT pg_notify(%s, pg_current_xact_id()::text)", (ledger.BULK_CHANNEL,))
    return True


_STATEMENTS = (
    "INSERT INTO shop.import_lines SELECT %(batch)s, i, 'SUP-' || i || '-' || %(batch)s, i / 100.0 "
    "FROM generate_series(%(first)s::int, %(last)s) AS i",
    "UPDATE shop.import_lines SET price = coalesce(price, 0) + 1 WHERE batch = %(previous)s "
    "AND line BETWEEN %(first)s AND %(last)s AND line %% 5 < 3 AND line %% %(keys)s <> 0",
    "UPDATE shop.import_lines SET line = line + %(shift)s WHERE batch = %(previous)s "
    "AND line BETWEEN %(first)s AND %(last)s AND line %% %(keys)s = 0",
    "INSERT INTO shop.audit_log (actor, action, amount) SELECT 'import', 'price', i "
    "FROM generate_series(%(first)s::int, %(last)s, 50) AS i",
    "UPDATE shop.audit_log SET action = 'price list' WHERE ctid = ANY(ARRAY(SELECT ctid "
    "FROM shop.audit_log WHERE actor = 'import' AND action = 'price' AND at >= "
    "transaction_timestamp() ORDER BY at DESC LIMIT 1))",
)
