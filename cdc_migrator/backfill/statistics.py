"""Gather the planner's statistics of loaded tables, several at a time.

Before foreign keys are made: their check is a query, and planned like any other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from psycopg import sql

from cdc_migrator.control import journal
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.naming import Names
from cdc_migrator.model.tables import TableName


def analyze(
    target_dsn: str,
    names: Names,
    tables: Sequence[TableName],
    jobs: int = 2,
    done: Collection[TableName] = (),
) -> None:
    """ANALYZE these tables of the migration, partitioned ones as a whole; the largest first.

    Args:
        jobs: sessions at a time.
        done: tables of the target that need it no more.

    Raises:
        MigratorError: a server's error in coded form.
    """
    called = f"cdcm-{names.migration}-load"
    with (
        connect(target_dsn, application_name=called, side="target") as target,
        speaking("target", "gathering statistics"),
    ):
        journal.write(target, "analyze")
        found = target.execute(
            "SELECT n.nspname, c.relname FROM cdc_migrator.table_progress t "
            "JOIN pg_class l ON l.oid = "
            "to_regclass(format('%%I.%%I', target_schema, target_table)) "
            "JOIN pg_class c ON c.oid = coalesce(pg_partition_root(l.oid), l.oid) "
            "JOIN pg_namespace n ON n.oid = c.relnamespace "
            "JOIN unnest(%s::text[], %s::text[]) AS a(schema, name) "
            "ON (source_schema, source_table) = (a.schema, a.name) "
            "GROUP BY 1, 2 ORDER BY sum(estimated_bytes) DESC, 1, 2",
            ([one.schema for one in tables], [one.name for one in tables]),
        ).fetchall()
    found = [one for one in found if TableName(*one) not in done]
    left = deque(found)

    def work() -> None:
        with (
            connect(target_dsn, application_name=called, side="target") as conn,
            speaking("target", "gathering statistics"),
        ):
            while left:
                # Each thread takes its own; the last may find nothing.
                with suppress(IndexError):
                    conn.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(*left.popleft())))

    lanes = min(jobs, len(found))
    if lanes:
        with ThreadPoolExecutor(lanes, thread_name_prefix="analyze") as pool:
            for lane in [pool.submit(work) for _ in range(lanes)]:
                lane.result()
