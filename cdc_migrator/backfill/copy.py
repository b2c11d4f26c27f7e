"""Copy one chunk: COPY out of the source into COPY of the target, bytes passed through unread.

The chunk is claimed before its first row and marked done after its last, in the transaction that
writes the rows: whatever is killed when, the chunk's rows are there once or not at all.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator

import psycopg
from psycopg import pq, sql
from psycopg.errors import error_from_result

from cdc_migrator.backfill.columns import Passage
from cdc_migrator.backfill.snapshot import Snapshot, enter_table
from cdc_migrator.control import load
from cdc_migrator.control.load import Chunk
from cdc_migrator.databases.postgres import names as quoted
from cdc_migrator.errors import Failed
from cdc_migrator.faultpoints import reach

# Each write to the target's socket takes this much: one row a write is several times slower.
_BLOCK = 256 * 1024


class SourceError(Exception):
    """An error of the source's session; the cause is the driver's error."""


class Stopped(Exception):
    """The copy was given up because the loader is ending."""


def copy_chunk(
    source: psycopg.Connection,
    target: psycopg.Connection,
    chunk: Chunk,
    way: Passage,
    snapshot: Snapshot,
    filenode: int,
    passed: Callable[[int, int], None],
) -> tuple[int, int] | None:
    """Copy a chunk's rows; (rows, bytes), or None if another loader has done it.

    Both sessions are in autocommit mode. After any exception throw them away: the source's may
    be in the middle of its COPY.

    Args:
        passed: told (rows, bytes) of each block as it passes; may raise `Stopped`.

    Raises:
        SnapshotLost: the rows can no longer be read as they were at the snapshot.
        SourceError: what else the source's session met.
        psycopg.Error: what the target's session met.
    """
    with target.transaction():
        if not load.claim(target, chunk):
            return None
        reach("load.chunk.claimed")
        form = sql.SQL("(FORMAT {})").format(sql.SQL("binary" if way.binary else "text"))
        fields = quoted.columns(way.columns)
        try:
            enter_table(source, snapshot, chunk.table, filenode)
        except psycopg.Error as exc:
            raise SourceError from exc
        out = sql.SQL("COPY (SELECT {} FROM ONLY {} WHERE {}) TO STDOUT {}").format(
            fields, quoted.table(way.source), _range(chunk), form
        )
        into = sql.SQL("COPY {} ({}) FROM STDIN {}").format(quoted.table(way.target), fields, form)
        size = 0
        rows_read = 0
        with target.cursor() as cursor:
            with cursor.copy(into) as copy:
                for item in _read(source, out):
                    if isinstance(item, int):
                        rows_read = item
                    else:
                        rows, block = item
                        copy.write(block)
                        size += len(block)
                        reach("load.chunk.passing")
                        passed(rows, len(block))
            rows = cursor.rowcount
        try:
            source.execute("COMMIT")
        except psycopg.Error as exc:
            raise SourceError from exc
        if rows != rows_read:
            # A trigger or rule of the target has swallowed or added rows.
            raise Failed(
                "CDCM-LOAD-COUNT",
                f"{rows_read} rows were read from {way.source} and {rows} arrived in {way.target}",
                "Look for triggers or rules on the target's table (ENABLE ALWAYS or REPLICA ones "
                "fire during the load), remove them and run the same command again.",
            )
        reach("load.chunk.copied")
        load.finish(target, chunk, rows, size)
        reach("load.chunk.finished")
    reach("load.chunk.committed")
    return rows, size


def _range(chunk: Chunk) -> sql.Composable:
    first = sql.SQL("ctid >= {}::tid").format(f"({chunk.first_block},0)")
    if chunk.end_block is None:
        return first
    return sql.SQL("{} AND ctid < {}::tid").format(first, f"({chunk.end_block},0)")


def _read(source: psycopg.Connection, query: sql.Composed) -> Iterator[tuple[int, bytes] | int]:
    """Blocks of COPY data as (messages in it, bytes), then the number of rows.

    Reads from libpq itself: the driver's own COPY reader costs as much as both servers together,
    for it takes each row through a generator of its own.
    """
    connection = source.pgconn
    try:
        result = connection.exec_(query.as_bytes(source))
        if result.status != pq.ExecStatus.COPY_OUT:
            raise _error(result)
        poll = select.poll()
        poll.register(connection.socket, select.POLLIN)
        pieces: list[bytes] = []
        held = 0
        while True:
            length, data = connection.get_copy_data(1)
            if length > 0:
                pieces.append(bytes(data))
                held += length
                if held < _BLOCK:
                    continue
            elif length == 0:
                poll.poll(1000)
                connection.consume_input()
            if pieces and (held >= _BLOCK or length != 0):
                yield len(pieces), b"".join(pieces)
                pieces, held = [], 0
            if length < 0:
                break
        last = connection.get_result()
        while (more := connection.get_result()) is not None:
            last = more
        if last is None or last.status != pq.ExecStatus.COMMAND_OK:
            raise _error(last)
        yield last.command_tuples or 0
    except psycopg.Error as exc:
        raise SourceError from exc


def _error(result: pq.abc.PGresult | None) -> psycopg.Error:
    """What went wrong, in the form in which the driver itself would have raised it."""
    error = error_from_result(result) if result is not None else None
    if error is None or error.sqlstate is None:
        # Of a lost session libpq makes up a result that has no code.
        return psycopg.OperationalError("the connection was lost")
    return error
