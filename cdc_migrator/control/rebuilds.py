"""Tables that are written anew range by range, and how far each of them is.

A range is written down in the transaction that writes its rows, and called proven when both sides
were seen equal in it. A rebuild whose process died goes on behind the last range.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg.rows import kwargs_row
from psycopg.types.json import Jsonb

from cdc_migrator.control import journal
from cdc_migrator.model.alignment import Rebuild
from cdc_migrator.model.tables import TableName

Key = tuple[str, ...] | None


class RebuildState(StrEnum):
    """``rebuild.state``; of a table one is running at most."""

    RUNNING = "running"
    DONE = "done"
    GIVEN_UP = "given up"


@dataclass(frozen=True, slots=True)
class Known:
    """One rebuild of the keys from `low` on and below `high`; None is the open end."""

    id: int
    table: TableName
    low: Key
    high: Key
    state: RebuildState
    actor: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Written:
    """One range that was written: its rows on the target before and after."""

    range: Rebuild
    rows_before: int
    rows_after: int
    proven_at: datetime | None


def _key(value: list[str] | None) -> Key:
    return None if value is None else tuple(value)


def _json(key: Key) -> Jsonb | None:
    return None if key is None else Jsonb(list(key))


def _known(**row: Any) -> Known:
    return Known(
        table=TableName(row.pop("source_schema"), row.pop("source_table")),
        low=_key(row.pop("low")),
        high=_key(row.pop("high")),
        state=RebuildState(row.pop("state")),
        **row,
    )


_KNOWN = "id, source_schema, source_table, low, high, state, actor, started_at"


def running(conn: psycopg.Connection, table: TableName) -> Known | None:
    """The rebuild of this table that is not through."""
    with conn.cursor(row_factory=kwargs_row(_known)) as cursor:
        return cursor.execute(
            f"SELECT {_KNOWN} FROM cdc_migrator.rebuild WHERE state = 'running' "  # noqa: S608
            "AND (source_schema, source_table) = (%s, %s)",
            (table.schema, table.name),
        ).fetchone()


def begin(conn: psycopg.Connection, table: TableName, low: Key, high: Key) -> Known:
    """Write a new rebuild down; one that was running is given up."""
    with conn.transaction(), conn.cursor(row_factory=kwargs_row(_known)) as cursor:
        there = running(conn, table)
        if there is not None:
            end(conn, there.id, RebuildState.GIVEN_UP)
        row = cursor.execute(
            "INSERT INTO cdc_migrator.rebuild (source_schema, source_table, low, high, actor) "  # noqa: S608
            f"VALUES (%s, %s, %s, %s, %s) RETURNING {_KNOWN}",
            (table.schema, table.name, _json(low), _json(high), journal.actor()),
        ).fetchone()
        assert row is not None
        journal.write(conn, "rebuild-begun", rebuild=row.id, table=str(table))
    return row


def end(conn: psycopg.Connection, rebuild: int, state: RebuildState) -> None:
    """The rebuild is over."""
    with conn.transaction():
        journal.write(conn, "rebuild-ended", rebuild=rebuild, state=state)
        conn.execute(
            "UPDATE cdc_migrator.rebuild SET state = %s, ended_at = clock_timestamp() "
            "WHERE id = %s AND state = 'running'",
            (state, rebuild),
        )


def ranges(conn: psycopg.Connection, known: Known) -> list[Written]:
    """What was written of a rebuild, in order."""

    def made(**row: Any) -> Written:
        low, high = _key(row.pop("low")), _key(row.pop("high"))
        return Written(Rebuild(known.table, known.id, row.pop("number"), low, high), **row)

    with conn.cursor(row_factory=kwargs_row(made)) as cursor:
        return cursor.execute(
            "SELECT number, low, high, rows_before, rows_after, proven_at "
            "FROM cdc_migrator.rebuild_range WHERE rebuild = %s ORDER BY number",
            (known.id,),
        ).fetchall()


def write(conn: psycopg.Connection, one: Rebuild, rows_before: int, rows_after: int) -> bool:
    """Write a range down, inside the transaction that wrote its rows.

    False: the rebuild is over, or the range is proven: the transaction must not be committed.
    """
    done = conn.execute(
        "INSERT INTO cdc_migrator.rebuild_range AS r "
        "(rebuild, number, low, high, rows_before, rows_after) "
        "SELECT id, %s, %s, %s, %s, %s FROM cdc_migrator.rebuild "
        "WHERE id = %s AND state = 'running' FOR SHARE "
        "ON CONFLICT (rebuild, number) DO UPDATE SET rows_before = excluded.rows_before, "
        "rows_after = excluded.rows_after, written_at = clock_timestamp() "
        "WHERE r.proven_at IS NULL AND r.low IS NOT DISTINCT FROM excluded.low "
        "AND r.high IS NOT DISTINCT FROM excluded.high",
        (one.number, _json(one.low), _json(one.high), rows_before, rows_after, one.id),
    )
    return done.rowcount == 1


def proven(conn: psycopg.Connection, one: Rebuild, at: datetime) -> None:
    """Both sides were seen equal in this range at a moment."""
    conn.execute(
        "UPDATE cdc_migrator.rebuild_range SET proven_at = %s WHERE (rebuild, number) = (%s, %s)",
        (at, one.id, one.number),
    )
