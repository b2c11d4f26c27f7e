"""Find out at the start what both servers hash alike: the same known values on either side.

That a hash is the same on two servers is not promised by anybody: it changes with the byte order,
and may with a major version. What does not agree is hashed as text, and where that does not agree
either, by md5 of the text.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from cdc_migrator.reconcile.at_once import at_once
from cdc_migrator.reconcile.expressions import NEWER_FUNCTIONS, RAW, Hashing, raw_template

_SAMPLES = {
    "int2": ("0", "1", "-1", "32767", "-32768"),
    "int4": ("0", "1", "-1", "2147483647", "-2147483648"),
    "int8": ("0", "1", "-1", "4294967295", "9223372036854775807", "-9223372036854775808"),
    "oid": ("0", "1", "4294967295"),
    "bool": ("true", "false"),
    "uuid": ("00000000-0000-0000-0000-000000000000", "9f0c1d2e-3b4a-4c5d-8e6f-708192a3b4c5"),
    "text": ("", " ", "a", "a ", "ünïcödé 日本語", "x" * 300),
    "varchar": ("", " ", "a", "a ", "ünïcödé 日本語", "x" * 300),
    "numeric": ("0", "1.50", "-1.50", "0.01", "10000", "99999999999.99", "NaN"),
    "bytea": ("", "\\x00", "\\x00ff10"),
    "date": ("2024-02-29", "infinity", "-infinity", "0044-03-15 BC"),
    "timestamp": ("2024-02-29 12:00:00.123456", "infinity", "1969-12-31 23:59:59.999999"),
    "timestamptz": ("2024-02-29 12:00:00.123456+05:30", "-infinity", "1900-01-01 00:00:00+00"),
}
assert set(_SAMPLES) == set(RAW)
_SEEDS = (2, 0x5EED, -9223372036854775807)
_TEXT = "(text)"
_MIX = "(mix)"


def agree(source: psycopg.Connection, target: psycopg.Connection) -> Hashing:
    """What both servers have and compute alike."""
    ours, theirs = at_once(lambda: _functions(source), lambda: _functions(target))
    functions = ours & theirs
    here, there = at_once(lambda: _values(source, functions), lambda: _values(target, functions))
    return decide(here, there, functions)


def decide(here: dict[str, Any], there: dict[str, Any], functions: frozenset[str]) -> Hashing:
    """What follows from the hashes of the samples on either side."""
    if any(here[name] != there[name] for name in (_TEXT, _MIX)):
        return Hashing(frozenset(), functions, by_server=False)
    return Hashing(frozenset(name for name in RAW if here[name] == there[name]), functions)


def _functions(conn: psycopg.Connection) -> frozenset[str]:
    rows = conn.execute(
        "SELECT DISTINCT proname::text FROM pg_proc "
        "WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY(%s)",
        (sorted(NEWER_FUNCTIONS),),
    )
    return frozenset(row[0] for row in rows)


def _values(conn: psycopg.Connection, functions: frozenset[str]) -> dict[str, Any]:
    """The hashes of each type's samples under each seed."""
    queries = {name: (raw_template(name, functions), name) for name in RAW}
    queries[_TEXT] = ('hashtextextended({c} COLLATE "C", {s})', "text")
    queries[_MIX] = ("hashint4extended(1, {c} # {s})", "int8")
    asked = {}
    for called, (template, name) in queries.items():
        value = sql.SQL("v.v::{}").format(sql.Identifier("pg_catalog", name))
        query = sql.SQL(
            "SELECT {} FROM unnest({}::text[]) AS v (v), unnest({}::int8[]) AS s (s) "
            'ORDER BY v.v COLLATE "C", s.s'
        ).format(
            sql.SQL(template).format(c=sql.SQL("({})").format(value), s=sql.Identifier("s", "s")),
            sql.Literal(list(_SAMPLES[name])),
            sql.Literal(list(_SEEDS)),
        )
        asked[called] = query
    with conn.pipeline():
        told = {called: conn.execute(query) for called, query in asked.items()}
        return {called: cursor.fetchall() for called, cursor in told.items()}
