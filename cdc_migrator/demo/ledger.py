"""What the writers committed, counted in the very transactions that did it.

The counters live in a schema of their own. Moved along with the shop, they say on either side
which of the writers' transactions are there, each whole with its count or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping

import psycopg

from cdc_migrator.errors import Failed

BULK_CHANNEL = "shop_bulk"
_POLL_SECONDS = 0.1


def record(conn: psycopg.Connection, writer: int, kind: str) -> None:
    """Count one transaction of `kind` within the open transaction."""
    conn.execute(
        "INSERT INTO shop_ledger.committed VALUES (%s, %s, 1, clock_timestamp()) "
        "ON CONFLICT (writer, kind) DO UPDATE "
        "SET count = committed.count + 1, last_commit_at = excluded.last_commit_at",
        (writer, kind),
    )


def read_ledger(dsn: str) -> dict[str, int]:
    """Transactions committed so far by kind, all writers together."""
    with psycopg.connect(dsn) as conn:
        return _read(conn)


def read_by_writer(dsn: str) -> dict[str, int]:
    """Transactions committed so far, by "writer/kind"."""
    with psycopg.connect(dsn) as conn:
        rows = conn.execute("SELECT writer || '/' || kind, count FROM shop_ledger.committed")
        return dict(rows.fetchall())


def _read(conn: psycopg.Connection) -> dict[str, int]:
    rows = conn.execute("SELECT kind, sum(count)::bigint FROM shop_ledger.committed GROUP BY kind")
    return dict(rows.fetchall())


def missing_kinds(
    before: Mapping[str, int], after: Mapping[str, int], kinds: Iterable[str]
) -> tuple[str, ...]:
    """The kinds of which no transaction committed between two readings; empty is good."""
    return tuple(sorted(k for k in kinds if after.get(k, 0) <= before.get(k, 0)))


def wait_for_every_kind(
    dsn: str,
    before: Mapping[str, int],
    kinds: Collection[str],
    timeout: float,
    check: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Wait until a transaction of each kind has committed since `before`; returns that reading.

    Args:
        check: called again and again meanwhile; raises when waiting has become useless,
            as the workload's own `check` does.

    Raises:
        Failed: CDCM-DEMO-KIND-MISSING: not within `timeout` seconds; names the kinds.
    """
    deadline = time.monotonic() + timeout
    with psycopg.connect(dsn, autocommit=True) as conn:
        while missing := missing_kinds(before, after := _read(conn), kinds):
            check()
            if time.monotonic() > deadline:
                raise Failed(
                    "CDCM-DEMO-KIND-MISSING",
                    f"within {timeout:.0f} s no transaction of these kinds committed: "
                    f"{', '.join(missing)}",
                    "Look at the workload's log: a writer may be blocked or have failed.",
                )
            time.sleep(_POLL_SECONDS)
    return after


class BulkCommits:
    """Tells the moment at which a large transaction commits on the source.

    For a test that wants to hit the connector while it sends one: decoding starts at the commit.
    A context manager; commits before it was entered are not reported.
    """

    def __init__(self, dsn: str) -> None:
        self._conn = psycopg.connect(
            dsn, autocommit=True, application_name="cdc-migrator-demo watch"
        )
        self._conn.execute(f"LISTEN {BULK_CHANNEL}")

    def __enter__(self) -> BulkCommits:
        return self

    def __exit__(self, *_: object) -> None:
        self._conn.close()

    def wait(self, timeout: float) -> int | None:
        """The id (64 bits) of the next large transaction, or None after `timeout` seconds."""
        for notice in self._conn.notifies(timeout=timeout, stop_after=1):
            return int(notice.payload)
        return None
