"""Copy one chunk: COPY out of the source into COPY of the target, bytes passed through unread.

The chunk is claimed before its first row and marked done after its last, in the transaction that
writes the rows: whatever is killed when, the chunk's rows are there once or not at all.

A chunk that is all of its table is frozen as it is written: its rows never need to be visited
again to be known as visible, which the first index, foreign keys and VACUUM would do.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from psycopg import sql

from cdc_migrator.backfill.emptied import begin_empty
from cdc_migrator.backfill.reading import Job, hooked, reading
from cdc_migrator.control import load
from cdc_migrator.databases.postgres import names as quoted
from cdc_migrator.errors import Failed
from cdc_migrator.faultpoints import reach


class Stopped(Exception):
    """The copy was given up because the loader is ending."""


def copy_chunk(
    source: psycopg.Connection,
    target: psycopg.Connection,
    job: Job,
    passed: Callable[[int, int], None],
) -> tuple[int, int] | None:
    """Copy a chunk's rows; (rows, bytes), or None if another loader has done it.

    Both sessions are in autocommit mode. After any exception throw them away: the source's may
    be in the middle of its COPY.

    Args:
        passed: told (rows, bytes) of each block as it passes, rows perhaps as an estimate; may
            raise `Stopped`.

    Raises:
        SnapshotLost: the rows can no longer be read as they were at the snapshot.
        SourceError: what else reading from the source met.
        psycopg.Error: what the target's session met.
        Refused: CDCM-TARGET-NOT-EMPTY; a hook fails. Failed: CDCM-LOAD-COUNT.
    """
    chunk, way = job.chunk, job.way
    with target.transaction():
        if not load.claim(target, chunk):
            return None
        reach("load.chunk.claimed")
        size = 0
        rows_read = 0
        with reading(source, job) as blocks, target.cursor() as cursor:
            with cursor.copy(_into(target, job)) as copy:
                for item in hooked(job, blocks):
                    if isinstance(item, int):
                        rows_read = item
                    else:
                        rows, block = item
                        copy.write(block)
                        size += len(block)
                        reach("load.chunk.passing")
                        passed(rows, len(block))
            rows = cursor.rowcount
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


def _into(target: psycopg.Connection, job: Job) -> sql.Composed:
    """The COPY that takes a chunk's rows; a whole table is begun anew for it."""
    form = "FORMAT binary" if job.way.binary else "FORMAT text"
    if job.chunk.whole and begin_empty(target, job.way.target, job.way.belongs):
        reach("load.chunk.emptied")
        form += ", FREEZE"
    return sql.SQL("COPY {} ({}) FROM STDIN ({})").format(
        quoted.table(job.way.target), quoted.columns(job.way.columns), sql.SQL(form)
    )
