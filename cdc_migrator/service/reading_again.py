"""Ask for tables to be read again: the next load does it."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from cdc_migrator.control import load, progress
from cdc_migrator.errors import Refused


def read_again(
    conn: psycopg.Connection, tables: Sequence[str], takeover_after: float | None
) -> None:
    """Mark these tables, by the names that the migration has for them.

    Args:
        takeover_after: seconds of silence after which whoever applies is gone; None: it waits.

    Raises:
        Refused: CDCM-LOAD-AGAIN-UNKNOWN, CDCM-LOAD-AGAIN-RUNNING.
    """
    there = load.read_tables(conn)
    known = {str(one.source): one.relation for one in there}
    unknown = sorted(set(tables) - known.keys())
    if unknown:
        raise Refused(
            "CDCM-LOAD-AGAIN-UNKNOWN",
            f"the migration has no table {', '.join(unknown)}",
            "`cdc-migrator status` shows its tables, spelled as they must be named here.",
        )
    if takeover_after is not None and progress.alive(conn, takeover_after):
        raise Refused(
            "CDCM-LOAD-AGAIN-RUNNING",
            "a process applies the stream, which must not happen while tables are read again",
            "Stop `cdc-migrator run` (or `migrate`), read the tables again, then start it.",
        )
    # Of a table that is split all routes: what the table is, is noted once for all of them.
    wanted = {known[name] for name in tables}
    load.again(conn, [one.source for one in there if one.relation in wanted])
