"""Capture that begins anew under the rows that are there: which generation, and how far it is.

The generation is raised in one transaction, which ends whoever applies the stream and marks every
table as one that keeps its rows (``keeps``). A table is done when it holds what the new capture's
snapshot shows; when all are, the marks go, and the new stream may be applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psycopg

from cdc_migrator.control import journal, migration, progress, proofs
from cdc_migrator.control.migration import Phase
from cdc_migrator.control.progress import FORWARD
from cdc_migrator.model.tables import TableName


def begin(
    conn: psycopg.Connection, generation: int, lost: Sequence[str], reason: str | None
) -> bool:
    """Enter the generation behind this one; False where another process has done so meanwhile.

    Waits for the apply transaction under way; nothing of the former stream is applied after it.

    Args:
        lost: codes of what was lost. reason: a person's, for which it begins anew all the same.
    """
    with conn.transaction():
        there = conn.execute("SELECT generation FROM cdc_migrator.migration FOR UPDATE").fetchone()
        if there != (generation,):
            return False
        journal.write(
            conn, "capture-anew", generation=generation + 1, lost=list(lost), reason=reason
        )
        conn.execute(
            "UPDATE cdc_migrator.stream_progress SET epoch = epoch + 1 WHERE stream = %s",
            (FORWARD,),
        )
        migration.update(
            conn,
            "phase",
            generation=generation + 1,
            phase=Phase.CAPTURE,
            consistent_point=None,
            snapshot_name=None,
            snapshot=None,
            snapshot_holder_pid=None,
            last_error=None,
        )
        # One that was on its way into the stream holds nothing that can be gone on with.
        conn.execute(
            "UPDATE cdc_migrator.table_progress SET keeps = joining IS NULL, "
            "load_state = 'waiting', reread_snapshot = NULL, reread_until = NULL, "
            "joining = CASE WHEN joining IS NOT NULL THEN 'loading' END"
        )
        conn.execute("DELETE FROM cdc_migrator.table_shape")
        conn.execute("DELETE FROM cdc_migrator.schema_change WHERE settled_at IS NULL")
        conn.execute(
            "DELETE FROM cdc_migrator.backfill_chunk c USING cdc_migrator.table_progress t "
            "WHERE t.keeps "
            "AND (c.source_schema, c.source_table) = (t.source_schema, t.source_table)"
        )
        proofs.forget(conn)
    return True


def under_way(conn: psycopg.Connection) -> bool:
    """Whether capture begins anew, and not every table is done."""
    row = conn.execute(
        "SELECT EXISTS (SELECT FROM cdc_migrator.table_progress WHERE keeps)"
    ).fetchone()
    return row == (True,)


def ran(conn: psycopg.Connection, generation: int) -> bool:
    """Whether this generation of the stream has its progress row: its connector may have run."""
    stored = progress.read(conn)
    return stored is not None and stored.generation >= generation


def know_topic(conn: psycopg.Connection, topic_id: str) -> None:
    """Write down which topic the stream's is, where an earlier release did not."""
    conn.execute(
        "UPDATE cdc_migrator.stream_progress SET topic_id = %s "
        "WHERE stream = %s AND topic_id IS NULL",
        (topic_id, FORWARD),
    )


def note_files(conn: psycopg.Connection, files: Mapping[TableName, int]) -> None:
    """Write each table's present file down, before the snapshot is taken (see `load.register`).

    Args:
        files: by the tables of the source, of which one may be known by several names.
    """
    with conn.cursor() as cursor:
        cursor.executemany(
            "UPDATE cdc_migrator.table_progress SET source_filenode = %s "
            "WHERE (coalesce(route #>> '{source,0}', source_schema), "
            "coalesce(route #>> '{source,1}', source_table)) = (%s, %s)",
            [(node, table.schema, table.name) for table, node in files.items()],
        )


def enter(conn: psycopg.Connection, table: TableName, snapshot: str, until: str) -> bool:
    """Begin to bring a table to a snapshot; False where that is gone on with.

    Args:
        snapshot: text of the ``pg_snapshot``. until: a log position past every commit it sees.
    """
    return (
        conn.execute(
            "UPDATE cdc_migrator.table_progress SET load_state = 'loading', "
            "load_started_at = clock_timestamp(), load_ended_at = NULL, attempt = attempt + 1, "
            "reread_snapshot = %s, reread_until = %s "
            "WHERE (source_schema, source_table) = (%s, %s) "
            "AND reread_snapshot IS DISTINCT FROM %s",
            (snapshot, until, table.schema, table.name, snapshot),
        ).rowcount
        == 1
    )


def alone(conn: psycopg.Connection, table: TableName) -> None:
    """Be the only one that writes to a table, in the caller's transaction: a killed process may
    have left a session that is still at it."""
    conn.execute(
        "SELECT FROM cdc_migrator.table_progress "
        "WHERE (source_schema, source_table) = (%s, %s) FOR UPDATE",
        (table.schema, table.name),
    )


def done(conn: psycopg.Connection, table: TableName, rows: int) -> None:
    """The table holds what the snapshot that it has entered shows."""
    conn.execute(
        "UPDATE cdc_migrator.table_progress SET load_state = 'loaded', rows_loaded = %s, "
        "load_ended_at = clock_timestamp() WHERE (source_schema, source_table) = (%s, %s)",
        (rows, table.schema, table.name),
    )


def end(conn: psycopg.Connection) -> None:
    """Every table is done: the new stream may be applied."""
    with conn.transaction():
        conn.execute("UPDATE cdc_migrator.table_progress SET keeps = false WHERE keeps")
        migration.set_phase(conn, Phase.STREAM)
