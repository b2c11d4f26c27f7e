"""The load's own rows: one a table, one a chunk. A chunk's rows and its done mark commit together.

Whoever copies a chunk claims its row first, in the transaction that writes the rows, and marks
it last. A second loader, or the leftover backend of a killed one, waits at the claim and then
finds the chunk done; a chunk of an earlier attempt is not found at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import psycopg
from psycopg.rows import kwargs_row
from psycopg.types.json import Jsonb

from cdc_migrator.control import dead_letters, journal, proofs
from cdc_migrator.model import mapping
from cdc_migrator.model.mapping import Route
from cdc_migrator.model.tables import Table, TableName

# The routes of those tables that have some; several where a table is split.
Routes = Mapping[TableName, Sequence[Route]]
NO_ROUTES: Routes = {}


class LoadState(StrEnum):
    """``table_progress.load_state``."""

    WAITING = "waiting"
    LOADING = "loading"
    LOADED = "loaded"


class Joining(StrEnum):
    """``table_progress.joining``: how far a table is that is taken into a stream that runs.

    PUBLISHING: some transaction may still be without its changes in the stream, so that it must
    not be read yet. LOADING: they are all there; rows and indexes are on their way, and the
    applier waits at its first change.
    """

    PUBLISHING = "publishing"
    LOADING = "loading"


@dataclass(frozen=True, slots=True)
class TableLoad:
    """One row of ``table_progress``, as far as the load is concerned.

    Attributes:
        source_filenode: the table's file on the source when its snapshot was taken.
        attempt: 0 for the first reading, one more for each time the table was read anew.
        reread_snapshot: text of the ``pg_snapshot`` of the latest reading anew; None for the
            first one, which sees exactly what committed up to the slot's consistent point.
        reread_until: a log position past every commit that `reread_snapshot` sees.
        planned: its chunks are written down.
        joining: None for a table that the stream is applied to.
        seconds: from its first chunk's beginning to its last one's end; None before that.
        keeps: capture begins anew, and its rows stay: only what differs is written.
        route: how its rows become others; None: they stay what they are.
    """

    source: TableName
    target: TableName
    state: LoadState
    estimated_rows: int
    estimated_bytes: int
    rows_loaded: int
    bytes_loaded: int
    source_filenode: int
    attempt: int
    reread_snapshot: str | None
    reread_until: str | None
    planned: bool
    joining: Joining | None = None
    seconds: float | None = None
    keeps: bool = False
    route: Route | None = None

    @property
    def relation(self) -> TableName:
        """The table of the source that its rows are read from: `source`, but for further routes of
        a table that is split."""
        return self.source if self.route is None else self.route.source

    @property
    def belongs(self) -> str | None:
        """SQL over the target's rows, true of those of this table; None: all of them are."""
        return None if self.route is None else self.route.belongs

    @property
    def due(self) -> bool:
        """Whether a load has something to do for it."""
        return self.state is not LoadState.LOADED and self.joining is not Joining.PUBLISHING


@dataclass(frozen=True, slots=True)
class Chunk:
    """Heap blocks [first_block, end_block) of a table; None is the open end.

    `weight` is the chunk's share of the table's bytes on the source.
    """

    table: TableName
    number: int
    attempt: int
    first_block: int
    end_block: int | None
    weight: int

    @property
    def whole(self) -> bool:
        """Whether it is all of its table."""
        return self.first_block == 0 and self.end_block is None


def register(
    conn: psycopg.Connection, tables: Sequence[tuple[Table, int]], routes: Routes = NO_ROUTES
) -> None:
    """Write the tables of a migration down, each with its present file.

    Call it before the snapshot is taken: a file noted too early only means that the table is
    read anew without need, one noted too late would hide a TRUNCATE.
    """
    with conn.transaction(), conn.cursor() as cursor:
        journal.write(conn, "tables-registered", tables=[str(t.name) for t, _ in tables])
        cursor.execute("DELETE FROM cdc_migrator.table_progress")
        proofs.forget(conn)
        _insert(cursor, tables, None, routes)


def add(
    conn: psycopg.Connection, tables: Sequence[tuple[Table, int]], routes: Routes = NO_ROUTES
) -> None:
    """Write tables down that join a stream that runs, each with its present file.

    Call it before they are published: the applier waits at a change of a table that is on its
    way, and halts at one of a table that nobody knows.
    """
    with conn.transaction(), conn.cursor() as cursor:
        journal.write(conn, "tables-added", tables=[str(t.name) for t, _ in tables])
        _insert(cursor, tables, Joining.PUBLISHING, routes)


def _insert(
    cursor: psycopg.Cursor,
    tables: Sequence[tuple[Table, int]],
    joining: Joining | None,
    routes: Routes,
) -> None:
    cursor.executemany(
        "INSERT INTO cdc_migrator.table_progress (source_schema, source_table, target_schema, "
        "target_table, estimated_rows, estimated_bytes, source_filenode, joining, route) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            (
                name.schema,
                name.name,
                target.schema,
                target.name,
                table.estimated_rows,
                table.bytes,
                filenode,
                joining,
                Jsonb(route.document) if route else None,
            )
            for table, filenode in tables
            for name, target, route in _ways(table.name, routes.get(table.name, ()))
        ],
    )


def _ways(
    table: TableName, routes: Sequence[Route]
) -> list[tuple[TableName, TableName, Route | None]]:
    """Each row that a table gets: its name, its target, its route."""
    if not routes:
        return [(table, table, None)]
    return [(mapping.called(one, one is routes[0]), one.target, one) for one in routes]


def move(
    conn: psycopg.Connection, tables: Sequence[TableName], before: Joining, after: Joining | None
) -> None:
    """Take joining tables a step on; None makes them part of the stream."""
    with conn.transaction():
        journal.write(
            conn, "tables-joining", tables=[str(table) for table in tables], step=after or "joined"
        )
        for table in tables:
            conn.execute(
                "UPDATE cdc_migrator.table_progress SET joining = %s "
                "WHERE (source_schema, source_table) = (%s, %s) AND joining = %s",
                (after, table.schema, table.name, before),
            )


def ahead_until(conn: psycopg.Connection) -> str | None:
    """The log position up to which some table may be ahead of the stream; None: none ever was."""
    row = conn.execute("SELECT max(reread_until)::text FROM cdc_migrator.table_progress").fetchone()
    return row[0] if row else None


def joining(conn: psycopg.Connection) -> bool:
    """Whether some table is on its way into the stream."""
    row = conn.execute(
        "SELECT EXISTS (SELECT FROM cdc_migrator.table_progress WHERE joining IS NOT NULL)"
    ).fetchone()
    return row == (True,)


def _table(**row: Any) -> TableLoad:
    step, route = row.pop("joining"), row.pop("route")
    return TableLoad(
        route=mapping.read(route) if route else None,
        joining=Joining(step) if step else None,
        source=TableName(row.pop("source_schema"), row.pop("source_table")),
        target=TableName(row.pop("target_schema"), row.pop("target_table")),
        state=LoadState(row.pop("load_state")),
        **row,
    )


def read_tables(conn: psycopg.Connection) -> list[TableLoad]:
    """All tables of the migration, largest first."""
    with conn.cursor(row_factory=kwargs_row(_table)) as cursor:
        return cursor.execute(
            "SELECT source_schema, source_table, target_schema, target_table, load_state, "
            "estimated_rows, estimated_bytes, rows_loaded, bytes_loaded, source_filenode, "
            "attempt, joining, reread_snapshot::text, reread_until::text, "
            "EXISTS (SELECT FROM cdc_migrator.backfill_chunk c WHERE "
            "(c.source_schema, c.source_table) = (t.source_schema, t.source_table)) AS planned, "
            "extract(epoch FROM load_ended_at - load_started_at)::float8 AS seconds, "
            "coalesce(to_jsonb(t) ->> 'keeps', 'false')::boolean AS keeps, "
            "nullif(to_jsonb(t) -> 'route', 'null') AS route "
            "FROM cdc_migrator.table_progress t "
            "ORDER BY estimated_bytes DESC, source_schema, source_table"
        ).fetchall()


@dataclass(frozen=True, slots=True)
class Finished:
    """A table that is loaded: its size on the source and in how many chunks it came."""

    source: TableName
    target: TableName
    bytes: int
    parts: int


def finished(conn: psycopg.Connection) -> list[Finished]:
    """The tables that are loaded, largest first."""
    found = conn.execute(
        "SELECT source_schema, source_table, target_schema, target_table, "
        "sum(weight)::bigint, count(*) FROM cdc_migrator.table_progress t "
        "JOIN cdc_migrator.backfill_chunk c USING (source_schema, source_table) "
        "WHERE load_state = 'loaded' GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC, 1, 2"
    ).fetchall()
    return [Finished(TableName(a, b), TableName(c, d), e, f) for a, b, c, d, e, f in found]


def _chunk(**row: Any) -> Chunk:
    return Chunk(table=TableName(row.pop("source_schema"), row.pop("source_table")), **row)


def pending(conn: psycopg.Connection) -> list[Chunk]:
    """The chunks that are not done, of the largest table first."""
    with conn.cursor(row_factory=kwargs_row(_chunk)) as cursor:
        return cursor.execute(
            "SELECT source_schema, source_table, chunk AS number, c.attempt, first_block, "
            "end_block, weight FROM cdc_migrator.backfill_chunk c "
            "JOIN cdc_migrator.table_progress t USING (source_schema, source_table) "
            "WHERE NOT done ORDER BY estimated_bytes DESC, source_schema, source_table, chunk"
        ).fetchall()


def weights(conn: psycopg.Connection) -> tuple[int, int]:
    """(weight of the chunks that are done, weight of all): bytes on the source."""
    row = conn.execute(
        "SELECT coalesce(sum(weight) FILTER (WHERE done), 0)::bigint, "
        "coalesce(sum(weight), 0)::bigint FROM cdc_migrator.backfill_chunk"
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def plan(conn: psycopg.Connection, table: TableName, chunks: Sequence[Chunk]) -> None:
    """Write a table's chunks down and enter its loading, in one transaction."""
    with conn.transaction(), conn.cursor() as cursor:
        journal.write(
            conn,
            "table-planned",
            table=str(table),
            chunks=len(chunks),
            attempt=chunks[0].attempt,
        )
        cursor.executemany(
            "INSERT INTO cdc_migrator.backfill_chunk (source_schema, source_table, chunk, "
            "attempt, first_block, end_block, weight) VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    table.schema,
                    table.name,
                    chunk.number,
                    chunk.attempt,
                    chunk.first_block,
                    chunk.end_block,
                    chunk.weight,
                )
                for chunk in chunks
            ],
        )
        cursor.execute(
            "UPDATE cdc_migrator.table_progress SET load_state = 'loading', "
            "load_started_at = clock_timestamp() WHERE (source_schema, source_table) = (%s, %s)",
            (table.schema, table.name),
        )


def claim(conn: psycopg.Connection, chunk: Chunk) -> bool:
    """Lock a chunk inside the caller's transaction; False if it is done or of an old attempt."""
    row = conn.execute(
        "SELECT 1 FROM cdc_migrator.backfill_chunk WHERE (source_schema, source_table, chunk, "
        "attempt) = (%s, %s, %s, %s) AND NOT done FOR UPDATE",
        (chunk.table.schema, chunk.table.name, chunk.number, chunk.attempt),
    ).fetchone()
    return row is not None


def finish(conn: psycopg.Connection, chunk: Chunk, rows: int, size: int) -> bool:
    """Mark a claimed chunk done, in the same transaction; True if it was its table's last."""
    where = (chunk.table.schema, chunk.table.name)
    conn.execute(
        "UPDATE cdc_migrator.backfill_chunk SET done = true, rows = %s, bytes = %s, "
        "done_at = clock_timestamp() WHERE (source_schema, source_table, chunk) = (%s, %s, %s)",
        (rows, size, *where, chunk.number),
    )
    # This row's lock puts the last two chunks of a table one behind the other, so that the
    # second sees, by a statement of its own, that the first is done.
    conn.execute(
        "UPDATE cdc_migrator.table_progress SET rows_loaded = rows_loaded + %s, "
        "bytes_loaded = bytes_loaded + %s WHERE (source_schema, source_table) = (%s, %s)",
        (rows, size, *where),
    )
    last = conn.execute(
        "UPDATE cdc_migrator.table_progress SET load_state = 'loaded', "
        "load_ended_at = clock_timestamp() WHERE (source_schema, source_table) = (%s, %s) "
        "AND NOT EXISTS (SELECT FROM cdc_migrator.backfill_chunk "
        "WHERE (source_schema, source_table) = (%s, %s) AND NOT done)",
        (*where, *where),
    )
    return last.rowcount == 1


def again(conn: psycopg.Connection, tables: Sequence[TableName]) -> None:
    """Have loaded tables read anew: the next load finds no snapshot for them, and takes one."""
    with conn.transaction():
        journal.write(conn, "tables-again", tables=[str(table) for table in tables])
        for table in tables:
            conn.execute(
                "UPDATE cdc_migrator.table_progress SET load_state = 'waiting' "
                "WHERE (source_schema, source_table) = (%s, %s)",
                (table.schema, table.name),
            )


def begin_anew(
    conn: psycopg.Connection, table: TableName, snapshot: str, until: str, filenode: int, why: str
) -> None:
    """Forget what was loaded of a table, inside the caller's transaction.

    The caller empties the target table in the same transaction, after this call: the chunks'
    locks wait for any leftover backend that is still writing rows into it.

    Args:
        snapshot: text of the ``pg_snapshot`` under which the table will be read.
        until: a log position past every commit that the snapshot sees.
    """
    where = (table.schema, table.name)
    journal.write(conn, "table-read-anew", table=str(table), snapshot=snapshot, why=why)
    proofs.forget(conn, table)
    dead_letters.forget(conn, table)
    conn.execute(
        "SELECT FROM cdc_migrator.backfill_chunk "
        "WHERE (source_schema, source_table) = (%s, %s) FOR UPDATE",
        where,
    )
    conn.execute(
        "DELETE FROM cdc_migrator.backfill_chunk WHERE (source_schema, source_table) = (%s, %s)",
        where,
    )
    conn.execute(
        "UPDATE cdc_migrator.table_progress SET load_state = 'waiting', rows_loaded = 0, "
        "bytes_loaded = 0, attempt = attempt + 1, source_filenode = %s, reread_snapshot = %s, "
        "reread_until = %s WHERE (source_schema, source_table) = (%s, %s)",
        (filenode, snapshot, until, *where),
    )
