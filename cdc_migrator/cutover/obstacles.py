"""What the source's fence would wait for, or could not stop: found before it is tried.

The fence takes SHARE ROW EXCLUSIVE locks (`ALTER TABLE`, ENABLE TRIGGER): it waits for writers,
which end by themselves, and for maintenance, which may take hours
(https://www.postgresql.org/docs/current/explicit-locking.html). Statement triggers do not fire for
rows that a subscription applies
(https://www.postgresql.org/docs/current/logical-replication-architecture.html).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import psycopg

from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.model.tables import TableName


class Kind(StrEnum):
    """What somebody who is in the way does there."""

    WRITER = "writer"
    AUTOVACUUM = "autovacuum"
    WRAPAROUND = "anti-wraparound vacuum"
    MAINTENANCE = "maintenance"
    PREPARED = "prepared transaction"
    SUBSCRIPTION = "subscription"


# Who of these gives way: writers end, and a plain autovacuum can be sent away.
GIVE_WAY = frozenset({Kind.WRITER, Kind.AUTOVACUUM})


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Somebody in the way of the fence.

    Attributes:
        tables: where, sorted.
        name: of the session's user, the prepared transaction or the subscription.
        pid: of the session; None for what has none.
        seconds: for how long its transaction has been open; None where unknown.
    """

    kind: Kind
    tables: tuple[TableName, ...]
    name: str
    pid: int | None = None
    seconds: float | None = None

    @property
    def remedy(self) -> str:
        """What a person can do about it."""
        match self.kind:
            case Kind.PREPARED:
                return f"COMMIT PREPARED or ROLLBACK PREPARED {self.name!r} on the source"
            case Kind.SUBSCRIPTION:
                return f"ALTER SUBSCRIPTION {self.name} DISABLE on the source"
            case Kind.WRAPAROUND:
                return "let the vacuum end; it protects the source from stopping altogether"
            case Kind.MAINTENANCE:
                return f"let it end, or SELECT pg_cancel_backend({self.pid}) on the source"
            case Kind.WRITER | Kind.AUTOVACUUM:
                return f"let it end, or SELECT pg_terminate_backend({self.pid}) on the source"


_TABLES = (
    "SELECT c.oid, n.nspname, c.relname FROM unnest(%(schemas)s::text[], %(names)s::text[]) "
    "AS w(schema, name) JOIN pg_namespace n ON n.nspname = w.schema "
    "JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name"
)
# Modes that SHARE ROW EXCLUSIVE conflicts with. A prepared transaction has no process; its other
# locks are known by the one on its own id.
_HOLDERS = """
WITH ours AS ({tables})
SELECT p.gid, coalesce(p.owner, a.usename, ''), l.pid, a.backend_type,
       a.query LIKE '%%(to prevent wraparound)%%',
       bool_or(l.mode NOT IN ('RowExclusiveLock')),
       extract(epoch FROM clock_timestamp() - coalesce(p.prepared, a.xact_start))::float8,
       array_agg(ours.nspname || chr(31) || ours.relname)
FROM pg_locks l JOIN ours ON ours.oid = l.relation
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_locks t ON l.pid IS NULL AND t.pid IS NULL AND t.locktype = 'transactionid'
    AND t.virtualtransaction = l.virtualtransaction
LEFT JOIN pg_prepared_xacts p ON p.transaction = t.transactionid
WHERE l.locktype = 'relation' AND l.granted
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock',
               'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
AND l.pid IS DISTINCT FROM pg_backend_pid()
GROUP BY 1, 2, 3, 4, 5, 7 ORDER BY 7 DESC NULLS LAST
"""
_SUBSCRIPTIONS = """
WITH ours AS ({tables})
SELECT s.subname, array_agg(ours.nspname || chr(31) || ours.relname)
FROM pg_subscription s JOIN pg_subscription_rel r ON r.srsubid = s.oid
JOIN ours ON ours.oid = r.srrelid
WHERE s.subenabled GROUP BY 1 ORDER BY 1
"""


def obstacles(conn: psycopg.Connection, tables: Sequence[TableName]) -> list[Obstacle]:
    """Who is in the way of a fence around these tables now, the longest first. Changes nothing.

    Args:
        tables: every one that is to be fenced, partitions and their parents included.

    Raises:
        MigratorError: a server's error in coded form.
    """
    names = {
        "schemas": [table.schema for table in tables],
        "names": [table.name for table in tables],
    }
    with speaking("source", "looking who is at work on its tables"):
        holders = conn.execute(_HOLDERS.format(tables=_TABLES).encode(), names).fetchall()
        subscribed = conn.execute(_SUBSCRIPTIONS.format(tables=_TABLES).encode(), names).fetchall()
    found = [Obstacle(Kind.SUBSCRIPTION, _names(where), name) for name, where in subscribed]
    for gid, user, pid, backend, wraparound, strong, seconds, where in holders:
        if gid is not None:
            kind = Kind.PREPARED
        elif backend == "autovacuum worker":
            kind = Kind.WRAPAROUND if wraparound else Kind.AUTOVACUUM
        else:
            kind = Kind.MAINTENANCE if strong else Kind.WRITER
        found.append(Obstacle(kind, _names(where), gid or user, pid, seconds))
    return found


def _names(where: Sequence[str]) -> tuple[TableName, ...]:
    return tuple(sorted({TableName(*one.split("\x1f")) for one in where}))
