"""What a command asks of the running service, through the target, and the answer.

Whoever asks is known by its session: what it was given is taken back when that is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from cdc_migrator.control import journal

ASKED = "cdc_migrator_asked"
ANSWERED = "cdc_migrator_answered"
_COLUMNS = "id, kind, details, state, answer"


@dataclass(frozen=True, slots=True)
class Request:
    """One row of ``request``; `state` is asked, taken, answered, failed or released."""

    id: int
    kind: str
    details: dict[str, Any]
    state: str
    answer: dict[str, Any] | None


def ask(conn: psycopg.Connection, kind: str, details: dict[str, Any]) -> int:
    """Ask; the request's number. It lives as long as this session."""
    row = conn.execute(
        "WITH one AS (INSERT INTO cdc_migrator.request (kind, details, asked_by, asker_backend, "
        "asker_backend_start) SELECT %s, %s, %s, pid, backend_start FROM pg_stat_activity "
        "WHERE pid = pg_backend_pid() RETURNING id) "
        "SELECT id, pg_notify(%s, id::text) FROM one",
        (kind, Jsonb(details), journal.actor(), ASKED),
    ).fetchone()
    assert row is not None
    return int(row[0])


def read(conn: psycopg.Connection, number: int) -> Request | None:
    """The request as it stands."""
    with conn.cursor(row_factory=class_row(Request)) as cursor:
        return cursor.execute(
            f"SELECT {_COLUMNS} FROM cdc_migrator.request WHERE id = %s",  # noqa: S608
            (number,),
        ).fetchone()


def release(conn: psycopg.Connection, number: int) -> None:
    """Say that what the answer gave is no longer needed."""
    conn.execute(
        "WITH one AS (UPDATE cdc_migrator.request SET state = 'released' WHERE id = %s "
        "AND state <> 'failed' RETURNING id) SELECT pg_notify(%s, id::text) FROM one",
        (number, ASKED),
    )


def take(conn: psycopg.Connection) -> Request | None:
    """The oldest request that nobody has taken, now taken; None where there is none."""
    with conn.cursor(row_factory=class_row(Request)) as cursor:
        return cursor.execute(
            "UPDATE cdc_migrator.request SET state = 'taken' WHERE id = ("  # noqa: S608
            "SELECT min(id) FROM cdc_migrator.request WHERE state = 'asked') "
            f"RETURNING {_COLUMNS}"
        ).fetchone()


def answer(conn: psycopg.Connection, number: int, state: str, document: dict[str, Any]) -> None:
    """Answer a request (`answered` or `failed`), unless it was given up meanwhile."""
    conn.execute(
        "WITH one AS (UPDATE cdc_migrator.request SET state = %s, answer = %s, "
        "answered_at = clock_timestamp() WHERE id = %s AND state = 'taken' RETURNING id) "
        "SELECT pg_notify(%s, id::text) FROM one",
        (state, Jsonb(document), number, ANSWERED),
    )


def begin_anew(conn: psycopg.Connection, document: dict[str, Any]) -> None:
    """Fail what a former life of the service took or gave; `document` says why.

    Old requests are removed.
    """
    with conn.transaction():
        conn.execute(
            "UPDATE cdc_migrator.request SET state = 'failed', answer = %s "
            "WHERE state IN ('taken', 'answered')",
            (Jsonb(document),),
        )
        conn.execute(
            "DELETE FROM cdc_migrator.request WHERE asked_at < now() - interval '1 day' "
            "AND state IN ('failed', 'released')"
        )


def orphaned(conn: psycopg.Connection, numbers: list[int]) -> set[int]:
    """Which of these requests nobody wants any more: released, or their asker is gone."""
    rows = conn.execute(
        "SELECT r.id FROM cdc_migrator.request r LEFT JOIN pg_stat_activity a "
        "ON a.pid = r.asker_backend AND a.backend_start = r.asker_backend_start "
        "WHERE r.id = ANY(%s) AND (a.pid IS NULL OR r.state NOT IN ('taken', 'answered'))",
        (numbers,),
    ).fetchall()
    return {row[0] for row in rows}
