"""The tables of either side that a switch stands around: also those whose rows do not come back.

`mapping.left` has these on the way back: nobody applies them, but whoever writes to one side at a
time writes to all of its tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import sql

from cdc_migrator.control import load, mapping, relations
from cdc_migrator.databases.postgres import mapped, names
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.model.tables import TableName


def leaving(conn: psycopg.Connection) -> list[TableName]:
    """Those of the side that is left; `conn` is on the one that is entered."""
    left = (there for _, there in mapping.left(conn))
    return list(dict.fromkeys((*relations.of_source(load.read_tables(conn)), *left)))


def entering(conn: psycopg.Connection) -> list[TableName]:
    """Those of the side that is entered, which `conn` is on."""
    left = (here for here, _ in mapping.left(conn))
    return list(dict.fromkeys((*relations.of_target(load.read_tables(conn)), *left)))


def behind(
    here: psycopg.Connection, there: psycopg.Connection, tell: Callable[[str], None]
) -> dict[str, Any]:
    """What stays behind on the way back: tables that do not come along, and rows of shared tables
    that are of none of those that they would come to. Told, and as details of the switch.

    Args:
        here: on the side that is left. there: on the one that is entered.
    """
    with speaking("source", "reading what does not come back"):
        left = [str(table) for _, table in mapping.left(there)]
        routes = relations.routes(load.read_tables(there))
    rows: dict[str, int] = {}
    for table, ways in routes.items():
        apart = [one.back.apart for one in ways if one.back is not None and one.back.apart]
        # A table with rows that are kept back knowingly has some of none.
        if len(apart) == len(ways) and str(table) not in left:
            query = sql.SQL("SELECT count(*) FROM ONLY {} WHERE ({}) IS NOT TRUE").format(
                names.table(table), sql.SQL(" OR ").join(map(mapped.expression, apart))
            )
            with speaking("target", f"counting rows of {table} that do not come back"):
                row = here.execute(query).fetchone()
            assert row is not None
            rows[str(table)] = int(row[0])
    rows = {name: count for name, count in rows.items() if count}
    for name in left:
        tell(f"rows of {name} stay behind, as `back: none` says")
    for name, count in rows.items():
        tell(f"{count} rows of {name} are of no table of the source, and stay behind")
    return {"behind": {"tables": left, "rows": rows}} if left or rows else {}
