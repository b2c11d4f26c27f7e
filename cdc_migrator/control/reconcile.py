"""The rows of a comparison: its run, and the parts of each table with what was proven of them.

A part and the differences found in it are written in one transaction, once: a run that was killed
goes on with the parts that are not done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg.rows import kwargs_row
from psycopg.types.json import Jsonb

from cdc_migrator.control import differences, journal, proofs
from cdc_migrator.control.differences import columns
from cdc_migrator.control.proofs import Proof
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.differences import RowDifference
from cdc_migrator.model.tables import TableName

_RUNS_IN_DETAIL = 100  # of older ones only the run itself and its differences are kept
# The mode of what the service compares by itself, round by round: of many runs only the latest are
# kept, and none is journalled.
CONTINUOUS = "continuous"


class RunState(StrEnum):
    """``reconcile_run.state``: a stopped run, or one whose process died, can be resumed."""

    RUNNING = "running"
    STOPPED = "stopped"
    EQUAL = "equal"
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class Run:
    """One comparison of some tables, by the source's names."""

    id: int
    mode: str
    tables: tuple[TableName, ...]
    state: RunState
    actor: str
    started_at: datetime
    ended_at: datetime | None

    @property
    def unfinished(self) -> bool:
        return self.state in (RunState.RUNNING, RunState.STOPPED)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of one table, as planned: see ``reconcile_chunk``."""

    table: TableName
    number: int
    ordered_by: str | None
    low: str | None
    high: str | None
    bounds: tuple[str, ...]
    weight: int
    map: int | None = None
    first_chunk: int | None = None
    picked: tuple[int, ...] | None = None
    done: bool = False


@dataclass(frozen=True, slots=True)
class Proven:
    """What is known of one table in one run.

    Attributes:
        planned, done: parts. digested: chunks that keep their proofs, of the parts done.
        more: there are more differences than were named.
        since: the oldest moment at which one of its parts was proven; None before the first.
    """

    table: TableName
    planned: int
    done: int
    digested: int
    rows: int
    differences: int
    more: bool
    since: datetime | None


def _run(**row: Any) -> Run:
    return Run(
        tables=tuple(TableName(*pair) for pair in row.pop("tables")),
        state=RunState(row.pop("state")),
        **row,
    )


_RUN = "SELECT id, mode, tables, state, actor, started_at, ended_at FROM cdc_migrator.reconcile_run"


def begin(conn: psycopg.Connection, mode: str, tables: Sequence[TableName]) -> Run:
    """Write a new run down, and forget the parts of very old ones."""
    with conn.transaction(), conn.cursor(row_factory=kwargs_row(_run)) as cursor:
        row = cursor.execute(
            "INSERT INTO cdc_migrator.reconcile_run (mode, tables, actor) VALUES (%s, %s, %s) "
            "RETURNING id, mode, tables, state, actor, started_at, ended_at",
            (mode, Jsonb([[one.schema, one.name] for one in tables]), journal.actor()),
        ).fetchone()
        assert row is not None
        cursor.execute(
            "DELETE FROM cdc_migrator.reconcile_chunk WHERE run <= %s", (row.id - _RUNS_IN_DETAIL,)
        )
        cursor.execute(
            "DELETE FROM cdc_migrator.reconcile_run WHERE id <= %s AND mode = %s",
            (row.id - _RUNS_IN_DETAIL, CONTINUOUS),
        )
        if mode != CONTINUOUS:
            journal.write(conn, "reconcile-begun", run=row.id, mode=mode, tables=len(tables))
    return row


def runs(conn: psycopg.Connection, limit: int = 20) -> list[Run]:
    """The latest runs, newest first."""
    with conn.cursor(row_factory=kwargs_row(_run)) as cursor:
        return cursor.execute(_RUN + " ORDER BY id DESC LIMIT %s", (limit,)).fetchall()


def unfinished(conn: psycopg.Connection) -> Run | None:
    """The latest run that somebody asked for, if it was not finished."""
    with conn.cursor(row_factory=kwargs_row(_run)) as cursor:
        latest = cursor.execute(
            _RUN + " WHERE mode <> %s ORDER BY id DESC LIMIT 1", (CONTINUOUS,)
        ).fetchone()
    return latest if latest is not None and latest.unfinished else None


def resume(conn: psycopg.Connection, run: int) -> None:
    """The run goes on."""
    with conn.transaction():
        journal.write(conn, "reconcile-resumed", run=run)
        conn.execute(
            "UPDATE cdc_migrator.reconcile_run SET state = 'running', ended_at = NULL "
            "WHERE id = %s",
            (run,),
        )


def end(conn: psycopg.Connection, run: Run, state: RunState) -> None:
    """The run is over, or was stopped."""
    with conn.transaction():
        if run.mode != CONTINUOUS:
            journal.write(conn, "reconcile-ended", run=run.id, state=state)
        conn.execute(
            "UPDATE cdc_migrator.reconcile_run SET state = %s, ended_at = clock_timestamp() "
            "WHERE id = %s",
            (state, run.id),
        )


def plan(conn: psycopg.Connection, run: int, tables: Mapping[TableName, Sequence[Part]]) -> None:
    """Write tables' parts down in place of what was planned of them; what was proven is forgotten.

    A table without any stands on what was proven of it before.
    """
    none = [name for name, parts in tables.items() if not parts]
    with conn.transaction(), conn.cursor() as cursor:
        cursor.execute(
            "DELETE FROM cdc_migrator.reconcile_chunk WHERE run = %s "
            "AND (source_schema, source_table) IN (SELECT * FROM unnest(%s::text[], %s::text[]))",
            (run, *columns(tables)),
        )
        cursor.executemany(
            "INSERT INTO cdc_migrator.reconcile_chunk (run, source_schema, source_table, chunk, "
            "ordered_by, low, high, bounds, weight, map, first_chunk, picked) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    run,
                    part.table.schema,
                    part.table.name,
                    part.number,
                    part.ordered_by,
                    part.low,
                    part.high,
                    Jsonb(part.bounds),
                    part.weight,
                    part.map,
                    part.first_chunk,
                    None if part.picked is None else list(part.picked),
                )
                for parts in tables.values()
                for part in parts
            ],
        )
        if none:
            cursor.execute(
                "INSERT INTO cdc_migrator.reconcile_chunk (run, source_schema, source_table, "
                "chunk, bounds, weight, picked, done) SELECT %s, *, 0, '[]', 0, '{}', true "
                "FROM unnest(%s::text[], %s::text[])",
                (run, *columns(none)),
            )


def _part(**row: Any) -> Part:
    return Part(
        table=TableName(row.pop("source_schema"), row.pop("source_table")),
        bounds=tuple(row.pop("bounds")),
        picked=None if (picked := row.pop("picked")) is None else tuple(picked),
        **row,
    )


def parts(conn: psycopg.Connection, run: int) -> list[Part]:
    """All parts planned in a run."""
    with conn.cursor(row_factory=kwargs_row(_part)) as cursor:
        return cursor.execute(
            "SELECT source_schema, source_table, chunk AS number, ordered_by, low, high, bounds, "
            "weight, map, first_chunk, picked, done FROM cdc_migrator.reconcile_chunk "
            "WHERE run = %s ORDER BY source_schema, source_table, chunk",
            (run,),
        ).fetchall()


def finish(
    conn: psycopg.Connection,
    run: int,
    part: Part,
    rows: int,
    found: Sequence[RowDifference],
    more: bool,
    at: datetime,
    sees: str,
    proof: Proof | None = None,
) -> bool:
    """A part is proven, with the differences found in it; False if it was done before.

    Args:
        rows: on the source. more: `found` is not all.
        at, sees: the alignment point.
        proof: what of it stands until the chunks are written to.
    """
    # One answer is waited for, not five: in a cutover applications wait for each of them.
    with conn.pipeline() as pipeline, conn.transaction():
        done = conn.execute(
            "UPDATE cdc_migrator.reconcile_chunk SET done = true, rows = %s, differences = %s, "
            "more = %s, proven_at = %s, sees = %s WHERE (run, source_schema, source_table, chunk) "
            "= (%s, %s, %s, %s) AND NOT done",
            (
                rows,
                len(found),
                more,
                at,
                sees,
                run,
                part.table.schema,
                part.table.name,
                part.number,
            ),
        )
        pipeline.sync()
        if done.rowcount != 1:
            return False
        reach("reconcile.writing")
        differences.record(conn, run, found, at)
        if proof is not None:
            proofs.write(conn, run, proof, at, sees)
    return True


def _proven(**row: Any) -> Proven:
    return Proven(table=TableName(row.pop("source_schema"), row.pop("source_table")), **row)


def proven(conn: psycopg.Connection, run: int) -> list[Proven]:
    """What is known of each table that was planned in a run."""
    with conn.cursor(row_factory=kwargs_row(_proven)) as cursor:
        return cursor.execute(
            "SELECT source_schema, source_table, count(*) AS planned, "
            "count(*) FILTER (WHERE done) AS done, coalesce(sum(CASE WHEN picked IS NOT NULL "
            "THEN cardinality(picked) WHEN first_chunk IS NULL THEN 1 "
            "ELSE jsonb_array_length(bounds) + 1 END) FILTER (WHERE done), 0)::int8 AS digested, "
            "coalesce(sum(rows), 0)::int8 AS rows, "
            "coalesce(sum(differences), 0)::int8 AS differences, "
            "coalesce(bool_or(more), false) AS more, min(proven_at) AS since "
            "FROM cdc_migrator.reconcile_chunk WHERE run = %s GROUP BY 1, 2 ORDER BY 1, 2",
            (run,),
        ).fetchall()
