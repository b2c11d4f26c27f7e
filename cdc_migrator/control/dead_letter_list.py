"""What is kept back, for people and programs that look at it. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class Listed:
    """One key that is kept back, without its value.

    Attributes:
        hash: SHA-256 of the key as the stream has it. chained: how many keys are of its chain.
        letters: its records. left_out: those that came after it was given up.
        code, fault, sqlstate, constraint_name: why its first record was kept back.
        tries, tried_at, error: when they were tried again, and why they are still here.
        reason, changed_by, changed_at: who gave it up, when and why.
    """

    table: str
    hash: str
    state: str
    chain: int
    chained: int
    letters: int
    left_out: int
    parked_at: datetime
    code: str | None
    fault: str | None
    sqlstate: str | None
    constraint_name: str | None
    tries: int
    tried_at: datetime | None
    error: str | None
    reason: str | None
    changed_by: str | None
    changed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Shown:
    """One record that is kept back; `record_key`, `before_image` and `after_image` hold values."""

    id: int
    table: str
    hash: str
    record_table: str
    op: str
    record_key: bytes
    before_image: bytes | None
    after_image: bytes | None
    moves_on: bool
    moved_here: bool
    lsn: int
    xid: int
    commit_position: int
    place: int
    first_offset: int
    next_offset: int
    source_committed_at: datetime | None
    code: str
    sqlstate: str | None
    constraint_name: str | None
    fault: str
    seen_at: datetime


_WANTED = (
    "(%(tables)s::text[] IS NULL OR k.source_schema || '.' || k.source_table = ANY(%(tables)s)) "
    "AND (%(hashes)s::text[] IS NULL OR EXISTS "
    "(SELECT FROM unnest(%(hashes)s::text[]) AS h WHERE starts_with(k.hash, h))) "
)

_LISTED = f"""
SELECT k.source_schema || '.' || k.source_table AS table, k.hash, k.state, k.chain,
       count(*) OVER (PARTITION BY k.chain) AS chained, coalesce(l.letters, 0) AS letters,
       k.left_out, k.parked_at, l.code, l.fault, l.sqlstate, l.constraint_name, k.tries,
       k.tried_at, k.error, k.reason, k.changed_by, k.changed_at
FROM cdc_migrator.parked_key k
LEFT JOIN (SELECT DISTINCT ON (parked_key) parked_key, code, fault, sqlstate, constraint_name,
                  count(*) OVER (PARTITION BY parked_key) AS letters
           FROM cdc_migrator.dead_letter ORDER BY parked_key, id) AS l ON l.parked_key = k.id
WHERE {_WANTED}
ORDER BY k.id LIMIT %(limit)s
"""  # noqa: S608

_SHOWN = f"""
SELECT l.id, k.source_schema || '.' || k.source_table AS table, k.hash,
       l.record_schema || '.' || l.record_table AS record_table, l.op, l.record_key,
       l.before_image, l.after_image, l.moves_on, l.moved_here, l.lsn, l.xid, l.commit_position,
       l.place, l.first_offset, l.next_offset, l.source_committed_at, l.code, l.sqlstate,
       l.constraint_name, l.fault, l.seen_at
FROM cdc_migrator.dead_letter l JOIN cdc_migrator.parked_key k ON k.id = l.parked_key
WHERE k.chain IN (SELECT k.chain FROM cdc_migrator.parked_key k WHERE {_WANTED})
ORDER BY l.id LIMIT %(limit)s
"""  # noqa: S608


def listed(
    conn: psycopg.Connection,
    tables: Sequence[str] | None,
    hashes: Sequence[str] | None,
    limit: int | None = None,
) -> list[Listed]:
    """The keys of these tables, or whose hash begins so; in the order in which they were parked."""
    # A list is an array to the driver, another sequence may be a row.
    named = {
        "tables": None if tables is None else list(tables),
        "hashes": None if hashes is None else list(hashes),
        "limit": limit,
    }
    with conn.cursor(row_factory=class_row(Listed)) as cursor:
        return cursor.execute(_LISTED.encode(), named).fetchall()


def shown(conn: psycopg.Connection, hashed: str, limit: int | None = None) -> list[Shown]:
    """The records of this key and of those that it hangs together with, in the stream's order."""
    named = {"tables": None, "hashes": [hashed], "limit": limit}
    with conn.cursor(row_factory=class_row(Shown)) as cursor:
        return cursor.execute(_SHOWN.encode(), named).fetchall()
