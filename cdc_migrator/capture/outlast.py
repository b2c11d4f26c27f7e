"""Wait until every transaction that is open on the source now has ended.

Asked of the lock that a transaction holds on its own id from before its first change until after
it is visible to every new snapshot. One that takes its id later makes its first change later, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg

from cdc_migrator.errors import Failed
from cdc_migrator.model.wording import few

_LOOK_SECONDS = 0.1
_TELL_SECONDS = 10.0

# Sessions of this database and prepared transactions; no other database's can write our tables.
_OPEN = """
SELECT l.transactionid::text,
       CASE WHEN p.gid IS NOT NULL THEN format('prepared transaction %s', p.gid)
            ELSE format('session %s since %s', l.pid,
                        coalesce(to_char(a.xact_start, 'HH24:MI:SS'), '?')) END
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_prepared_xacts p ON p.transaction = l.transactionid
WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted
  AND coalesce(a.datname, p.database) = current_database()
  AND l.pid IS DISTINCT FROM pg_backend_pid()
"""


def open_transactions(conn: psycopg.Connection) -> dict[str, str]:
    """The writing transactions of this database by their ids, in words for people."""
    return dict(conn.execute(_OPEN).fetchall())


def outlast(
    conn: psycopg.Connection, patience: float, notify: Callable[[str], None] = lambda _: None
) -> None:
    """Return when every transaction that is open now has ended.

    Args:
        conn: an autocommit session on the source.
        patience: seconds.
        notify: told what is waited for, at once and then every few seconds.

    Raises:
        Failed: CDCM-JOIN-TIMEOUT: one is still open after `patience`.
    """
    waited_for = open_transactions(conn)
    deadline = time.monotonic() + patience
    tell_at = time.monotonic() + _LOOK_SECONDS
    while waited_for:
        now = time.monotonic()
        if now > deadline:
            raise Failed(
                "CDCM-JOIN-TIMEOUT",
                f"transactions that write on the source stayed open for {patience:.0f} s: "
                f"{_told(waited_for)}; tables can be added only when those that were open before "
                "have ended",
                "End them (pg_stat_activity, pg_prepared_xacts on the source), then run the same "
                "command again; it goes on where it was. See `capture.slot_patience`, too.",
            )
        if now >= tell_at:
            notify(f"waiting for transactions of the source that are older: {_told(waited_for)}")
            tell_at = now + _TELL_SECONDS
        time.sleep(_LOOK_SECONDS)
        still = open_transactions(conn)
        waited_for = {xid: who for xid, who in waited_for.items() if xid in still}


def _told(waited_for: dict[str, str]) -> str:
    return few(sorted(set(waited_for.values())))
