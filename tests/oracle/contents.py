"""What a database holds, as sorted texts by plain SQL, and how two of them differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import psycopg
from psycopg import sql

Contents = dict[str, list[str]]


def contents(conn: psycopg.Connection, tables: Sequence[str], schema: str = "shop") -> Contents:
    """Every row of every table as text, sorted; equal rows as often as they are there."""
    parts = [
        sql.SQL("SELECT {}, t::text FROM ONLY {} AS t").format(
            sql.Literal(table), sql.Identifier(schema, table)
        )
        for table in tables
    ]
    found: Contents = {table: [] for table in tables}
    for table, row in conn.execute(sql.SQL(" UNION ALL ").join(parts)):
        found[table].append(row)
    for rows in found.values():
        rows.sort()
    return found


def differences(wanted: Contents, found: Contents, side: str) -> list[str]:
    """One line for each row that `found` lacks or has too often; nothing where both are equal."""
    lines = []
    for table in sorted(wanted.keys() | found.keys()):
        there, here = Counter(wanted.get(table, ())), Counter(found.get(table, ()))
        lines += [f"{side}: {table} lacks {_short(row)} x{n}" for row, n in (there - here).items()]
        lines += [
            f"{side}: {table} has too much {_short(row)} x{n}" for row, n in (here - there).items()
        ]
    return lines


def _short(row: str) -> str:
    return row if len(row) < 200 else f"{row[:120]}…({len(row)} characters)…{row[-40:]}"
