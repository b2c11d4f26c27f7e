"""The rows that differ: found, found again, repaired, accepted by somebody, or gone by themselves.

A key stands open or accepted at most once. What was repaired or is gone stays as history; when the
key differs anew, that is a new difference. Keys are kept, other values never.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import kwargs_row
from psycopg.types.json import Jsonb

from cdc_migrator.control import journal
from cdc_migrator.model.differences import DifferenceKind, DifferenceState, RowDifference
from cdc_migrator.model.tables import TableName


@dataclass(frozen=True, slots=True)
class Known:
    """One row of ``difference``."""

    id: int
    table: TableName
    kind: DifferenceKind
    key: Mapping[str, str]
    columns: tuple[str, ...]
    source_count: int
    target_count: int
    run: int
    first_seen: datetime
    last_seen: datetime
    state: DifferenceState
    reason: str | None
    changed_by: str | None
    changed_at: datetime | None


def _known(**row: Any) -> Known:
    return Known(
        table=TableName(row.pop("source_schema"), row.pop("source_table")),
        kind=DifferenceKind(row.pop("kind")),
        state=DifferenceState(row.pop("state")),
        columns=tuple(row.pop("columns")),
        **row,
    )


_SAME = "(d.kind, d.columns) = (excluded.kind, excluded.columns)"
_RECORD = f"""
INSERT INTO cdc_migrator.difference AS d (source_schema, source_table, kind, key, columns,
    source_count, target_count, first_run, run, first_seen, last_seen)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (source_schema, source_table, md5(key::text)) WHERE state IN ('open', 'accepted')
DO UPDATE SET kind = excluded.kind, columns = excluded.columns,
    source_count = excluded.source_count, target_count = excluded.target_count,
    run = excluded.run, last_seen = excluded.last_seen,
    state = CASE WHEN {_SAME} THEN d.state ELSE 'open' END,
    reason = CASE WHEN {_SAME} THEN d.reason END,
    changed_by = CASE WHEN {_SAME} THEN d.changed_by END,
    changed_at = CASE WHEN {_SAME} THEN d.changed_at END
"""  # noqa: S608


def columns(tables: Iterable[TableName]) -> tuple[list[str], list[str]]:
    """Schemas and names, each an array for ``unnest``."""
    named = list(tables)
    return [one.schema for one in named], [one.name for one in named]


def record(
    conn: psycopg.Connection, run: int, found: Iterable[RowDifference], at: datetime
) -> None:
    """Write down what a run found at a moment, inside the caller's transaction.

    What was accepted stays so while it is the same kind of difference in the same columns.
    """
    with conn.cursor() as cursor:
        cursor.executemany(
            _RECORD,
            [
                (
                    one.table.schema,
                    one.table.name,
                    one.kind,
                    Jsonb(dict(one.key)),
                    list(one.columns),
                    one.source_count,
                    one.target_count,
                    run,
                    run,
                    at,
                    at,
                )
                for one in found
            ],
        )


_KNOWN = (
    "SELECT id, source_schema, source_table, kind, key, columns, source_count, target_count, run, "
    "first_seen, last_seen, state, reason, changed_by, changed_at FROM cdc_migrator.difference "
)


def standing(conn: psycopg.Connection, tables: Sequence[TableName]) -> list[Known]:
    """What is open or accepted of these tables, in the order in which it was found."""
    with conn.cursor(row_factory=kwargs_row(_known)) as cursor:
        return cursor.execute(
            _KNOWN  # noqa: S608
            + "WHERE state IN ('open', 'accepted') AND (source_schema, source_table) IN "
            "(SELECT * FROM unnest(%s::text[], %s::text[])) ORDER BY id",
            columns(tables),
        ).fetchall()


def history(conn: psycopg.Connection, table: TableName | None, limit: int) -> list[Known]:
    """All that is known, of one table or of all, latest first."""
    with conn.cursor(row_factory=kwargs_row(_known)) as cursor:
        return cursor.execute(
            _KNOWN + "WHERE %s::text IS NULL OR (source_schema, source_table) = (%s, %s) "
            "ORDER BY last_seen DESC, id DESC LIMIT %s",
            (table and table.name, table and table.schema, table and table.name, limit),
        ).fetchall()


def gone(conn: psycopg.Connection, run: int, tables: Sequence[TableName]) -> int:
    """What a whole comparison of these tables no longer found; returns how many."""
    done = conn.execute(
        "UPDATE cdc_migrator.difference SET state = 'gone', changed_at = clock_timestamp() "
        "WHERE (source_schema, source_table) IN "
        "(SELECT * FROM unnest(%s::text[], %s::text[])) AND run < %s "
        "AND state IN ('open', 'accepted')",
        (*columns(tables), run),
    )
    return done.rowcount


def left(conn: psycopg.Connection, tables: Sequence[TableName]) -> None:
    """Nobody looks at these tables any more: what was found there is history."""
    conn.execute(
        "UPDATE cdc_migrator.difference SET state = 'gone', changed_at = clock_timestamp() "
        "WHERE (source_schema, source_table) IN "
        "(SELECT * FROM unnest(%s::text[], %s::text[])) AND state IN ('open', 'accepted')",
        columns(tables),
    )


def repaired(conn: psycopg.Connection, found: Sequence[int], at: datetime) -> None:
    """These were written anew and seen to be equal at a moment."""
    conn.execute(
        "UPDATE cdc_migrator.difference SET state = 'repaired', changed_by = %s, changed_at = %s "
        "WHERE id = ANY(%s) AND state = 'open'",
        (journal.actor(), at, list(found)),
    )


def accept(conn: psycopg.Connection, found: Sequence[int], reason: str, who: str) -> list[int]:
    """Let these open differences stand; returns those that were open."""
    with conn.transaction():
        journal.write(conn, "differences-accepted", ids=list(found), reason=reason, by=who)
        rows = conn.execute(
            "UPDATE cdc_migrator.difference SET state = 'accepted', reason = %s, changed_by = %s, "
            "changed_at = clock_timestamp() WHERE id = ANY(%s) AND state = 'open' RETURNING id",
            (reason, who, list(found)),
        ).fetchall()
    return sorted(row[0] for row in rows)
