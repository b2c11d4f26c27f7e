"""How much there is, how fast it is read, how fast the log grows, what is free. Reads only."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import names as quoted
from cdc_migrator.model.tables import Table, TableName

_BLOCK = 8192
_SAMPLE_BLOCKS = 2048
_SAMPLE_TIMEOUT = "5s"
# The start of a process is known to a hundredth of a second, the boot that it counts from is not.
_SAME_START_SECONDS = 5.0


def with_indexes(conn: psycopg.Connection, names: Sequence[TableName]) -> int:
    """Bytes on disk of these tables with their indexes."""
    schemas, tables = [n.schema for n in names], [n.name for n in names]
    row = conn.execute(
        "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::int8 "
        "FROM unnest(%s::text[], %s::text[]) AS w(schema, name) "
        "JOIN pg_namespace n ON n.nspname = w.schema "
        "JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name",
        (schemas, tables),
    ).fetchone()
    assert row is not None
    return int(row[0])


def log_position(conn: psycopg.Connection) -> int:
    """Bytes of write-ahead log that a primary has ever written."""
    row = conn.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::int8").fetchone()
    assert row is not None
    return int(row[0])


def read_sample(conn: psycopg.Connection, table: Table) -> tuple[int, float] | None:
    """Read the first 16 MB of a table as the load does: bytes on disk, seconds; None: too slow.

    None as well where the table is locked, or not for this role to read. What is stored out of
    line is counted by the whole table's proportion.
    """
    row = conn.execute(
        "SELECT pg_relation_size(format('%%I.%%I', %s::text, %s::text)::regclass)",
        (table.name.schema, table.name.name),
    ).fetchone()
    assert row is not None
    heap = int(row[0])
    blocks = min(heap // _BLOCK, _SAMPLE_BLOCKS)
    if not blocks:
        return None
    query = sql.SQL("COPY (SELECT * FROM ONLY {} WHERE ctid < {}::tid) TO STDOUT").format(
        quoted.table(table.name), sql.Literal(f"({blocks},0)")
    )
    began = time.monotonic()
    try:
        with conn.transaction(), conn.cursor() as cursor:
            cursor.execute(
                f"SET LOCAL statement_timeout = '{_SAMPLE_TIMEOUT}'; SET LOCAL lock_timeout = '1s'"
            )
            with cursor.copy(query) as copy:
                for _ in copy:
                    pass
    except (
        psycopg.errors.QueryCanceled,
        psycopg.errors.LockNotAvailable,
        psycopg.errors.InsufficientPrivilege,
    ):
        return None
    seconds = max(time.monotonic() - began, 1e-6)
    return round(blocks * _BLOCK * max(table.bytes / heap, 1.0)), seconds


_WHERE = """
SELECT pg_backend_pid(), extract(epoch FROM backend_start)::float8,
       (SELECT setting FROM pg_settings WHERE name = 'data_directory')
FROM pg_stat_activity WHERE pid = pg_backend_pid()
"""


def free_here(conn: psycopg.Connection) -> int | None:
    """Bytes free where the server keeps its data, where it runs on this very machine.

    It does where the process that serves this session is one of here: same number, same start.
    None where it is not, or where the role may not see the server's directory.
    """
    row = conn.execute(_WHERE).fetchone()
    if row is None or row[2] is None:
        return None
    pid, started, directory = row
    try:
        if abs(psutil.Process(pid).create_time() - started) > _SAME_START_SECONDS:
            return None
        place = os.statvfs(Path(directory))
    except (psutil.Error, OSError):
        return None
    return place.f_bavail * place.f_frsize
