"""Read a chunk's rows from the source as blocks of COPY data, bytes that nobody looks into.

Two ways, with the same promises: the snapshot is the right one, the table still has its file and
keeps it while it is read, and the number of rows comes from the server. Our own session needs no
second one, but each row passes through this process. psql costs a process and a session, some
20 ms, and hands its rows over in large pieces: for large chunks.

psql is the quicker hand and no more. Whatever stops it, the chunk is read again by our own
session, which tells the reason in the server's own words.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psycopg
from psycopg import pq, sql
from psycopg.errors import error_from_result

from cdc_migrator.backfill.columns import Passage
from cdc_migrator.backfill.snapshot import Snapshot, enter_table
from cdc_migrator.backfill.tools import reaching
from cdc_migrator.control.load import Chunk
from cdc_migrator.databases.postgres import mapped
from cdc_migrator.databases.postgres import names as quoted
from cdc_migrator.databases.postgres.connect import pins
from cdc_migrator.hook.calling import Caller
from cdc_migrator.hook.copied import Passing

# Each write to the target's socket takes this much: one row a write is several times slower.
_BLOCK = 256 * 1024
_TOLD = re.compile(rb"^rows (\d+)$", re.MULTILINE)

# (rows, bytes) of each block, then the number of rows that the server has counted.
Blocks = Iterator[tuple[int, bytes] | int]


@dataclass(frozen=True, slots=True)
class Job:
    """One chunk with all that copying it needs.

    Attributes:
        rows: in the chunk by the source's statistics, 0 where unknown.
        psql: the program to read with; None: our own session reads.
    """

    chunk: Chunk
    way: Passage
    snapshot: Snapshot
    filenode: int
    rows: int = 0
    psql: Path | None = None


class SourceError(Exception):
    """An error of the source's session; the cause is the driver's error."""


class PsqlFailed(SourceError):
    """psql did not read the whole chunk; our own session will, or will say why not."""


@contextmanager
def by_session(source: psycopg.Connection, job: Job) -> Iterator[Blocks]:
    """Read through our own session, which is in autocommit mode.

    Raises:
        SnapshotLost: the rows can no longer be read as they were at the snapshot.
        SourceError: anything else; the session may be in the middle of its COPY then.
    """
    try:
        enter_table(source, job.snapshot, job.way.source, job.filenode)
    except psycopg.Error as exc:
        raise SourceError from exc
    yield _read(source, query(job))
    try:
        source.execute("COMMIT")
    except psycopg.Error as exc:
        raise SourceError from exc


@contextmanager
def by_psql(psql: Path, source: psycopg.Connection, job: Job) -> Iterator[Blocks]:
    """Read through a psql of its own, which goes where `source` is; it ends with the block.

    Should this process be killed, psql ends as soon as it has rows to hand over.

    Raises:
        PsqlFailed: it has ended early, for whatever reason.
    """
    address, environment = reaching(source, source.info.get_parameters()["application_name"])
    with tempfile.TemporaryFile() as script, tempfile.TemporaryFile() as said:
        script.write(_script(source, job))
        script.seek(0)
        try:
            process = subprocess.Popen(
                [psql, "-qX", "-v", "ON_ERROR_STOP=1", "-d", address],
                stdin=script,
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment,
                bufsize=0,
                process_group=0,  # an interrupt from the terminal is ours to deal with
            )
        except OSError as exc:
            raise PsqlFailed from exc
        assert process.stdout is not None
        try:
            yield _pass_on(process, process.stdout, said, job)
        finally:
            process.kill()
            process.stdout.close()
            process.wait()


def query(job: Job) -> sql.Composed:
    """The COPY that sends a chunk's rows; what a hook gives them is still what it reads."""
    way, table = job.way, quoted.table(job.way.source)
    form = sql.SQL("binary" if way.binary else "text")
    if way.route is None:
        columns: sql.Composable = quoted.columns(way.columns)
        where = []
        if job.chunk.whole:
            # Without a query's executor in between: some 6 % less of the source's time.
            return sql.SQL("COPY {} ({}) TO STDOUT (FORMAT {})").format(table, columns, form)
    else:
        reads = way.route.hook.reads if way.route.hook is not None else ()
        columns = sql.SQL(", ").join(
            [*map(mapped.written, way.route.made), *map(mapped.stored, reads)]
        )
        where = [mapped.passing(way.route)]
    if not job.chunk.whole:
        where.append(sql.SQL("ctid >= {}::tid").format(f"({job.chunk.first_block},0)"))
    if job.chunk.end_block is not None:
        where.append(sql.SQL("ctid < {}::tid").format(f"({job.chunk.end_block},0)"))
    return sql.SQL("COPY (SELECT {} FROM ONLY {} WHERE {}) TO STDOUT (FORMAT {})").format(
        columns, table, sql.SQL(" AND ").join(where), form
    )


def hooked(job: Job, blocks: Blocks) -> Blocks:
    """The same rows as they are to be written: with what a hook gives. Raises as `Caller.run`."""
    route = job.way.route
    if route is None or route.hook is None:
        yield from blocks
        return
    passing = Passing(Caller(route), len(route.hook.reads))
    for item in blocks:
        yield item if isinstance(item, int) else (item[0], passing.through(item[1]))


def _script(source: psycopg.Connection, job: Job) -> bytes:
    """What psql is told: what `enter_table` does, then the COPY and how many rows it had."""
    name = quoted.table(job.way.source)
    lines = sql.SQL("\n").join(
        [
            sql.SQL("{} \\g /dev/null").format(pins({"transaction_timeout": "0"})),
            sql.SQL("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"),
            sql.SQL("SET TRANSACTION SNAPSHOT {};").format(job.snapshot.name),
            sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE;").format(name),
            sql.SQL(
                "SELECT pg_current_snapshot()::text = {} "
                "AND pg_relation_filenode({}::regclass)::bigint = {} AS same \\gset"
            ).format(job.snapshot.sees, name.as_string(source), job.filenode),
            sql.SQL("\\if :same"),
            # Into the same pipe by another name: to its own output psql would not count the rows.
            sql.SQL("{} \\g /dev/stdout").format(query(job)),
            sql.SQL("\\warn rows :ROW_COUNT"),
            sql.SQL("\\endif\n"),
        ]
    )
    return lines.as_bytes(source)


def _pass_on(process: subprocess.Popen[bytes], out: IO[bytes], said: IO[bytes], job: Job) -> Blocks:
    size = rows = 0
    while block := os.read(out.fileno(), _BLOCK):
        size += len(block)
        if job.way.binary:
            by_now = job.rows * min(size, job.chunk.weight) // job.chunk.weight
            yield by_now - rows, block
            rows = by_now
        else:
            yield block.count(b"\n"), block
    ended = process.wait()
    said.seek(0)
    told = _TOLD.search(said.read())
    if ended != 0 or told is None:
        raise PsqlFailed
    yield int(told[1])


def _read(source: psycopg.Connection, statement: sql.Composed) -> Blocks:
    """Read from libpq itself: the driver's own COPY reader costs as much as both servers together,
    for it takes each row through a generator of its own. A block's messages are its rows.
    """
    connection = source.pgconn
    try:
        result = connection.exec_(statement.as_bytes(source))
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
