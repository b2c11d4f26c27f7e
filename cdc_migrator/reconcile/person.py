"""The statement by which a person compares a table without this program. Pure but for quoting.

It runs where one server shows both sides, the other one's table for example as a foreign table.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import mapped
from cdc_migrator.databases.postgres.connect import PINNED
from cdc_migrator.reconcile.pairs import Pair

_TEXT_SETTINGS = (
    "TimeZone",
    "DateStyle",
    "IntervalStyle",
    "extra_float_digits",
    "bytea_output",
    "lc_monetary",
    "search_path",
)


def statement(pair: Pair, quoting: psycopg.Connection) -> str:
    """SQL text: settings, then a query with a row for each row that is on one side only.

    The other side's table is called ``other``: to be replaced by its name.
    """
    belongs = pair.route and pair.route.belongs
    given = pair.route.hook.gives if pair.route is not None and pair.route.hook is not None else ()
    columns = sql.SQL(",\n       ").join(
        sql.SQL("{} AS {}").format(
            mapped.text_of(sql.Identifier(column.source.name)),
            sql.Identifier(column.name),
        )
        for column in pair.columns
        if column.name not in given
    )
    query = sql.SQL(
        "WITH source AS (\nSELECT {columns}\nFROM {rows}\n), target AS (\n"
        "SELECT {columns}\nFROM other{own}\n)\n"
        "SELECT 'missing_in_target' AS side, d.* "
        "FROM (SELECT * FROM source EXCEPT ALL SELECT * FROM target) d\nUNION ALL\n"
        "SELECT 'extra_in_target' AS side, d.* "
        "FROM (SELECT * FROM target EXCEPT ALL SELECT * FROM source) d;\n"
    ).format(
        columns=columns,
        rows=pair.plain(False),
        own=sql.SQL("\nWHERE {}").format(mapped.expression(belongs)) if belongs else sql.SQL(""),
    )
    settings = "".join(f"SET {name} = '{PINNED[name]}';\n" for name in _TEXT_SETTINGS)
    left = f"-- Without what the hook gives: {', '.join(given)}\n" if given else ""
    return f"-- In place of other: the target's table.\n{left}{settings}{query.as_string(quoting)}"
