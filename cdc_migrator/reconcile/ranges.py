"""Ranges of the whole key of a table that hold the same rows on both sides, and are cheap to read.

`chunks` cuts a table by any order that both sides share, for readings of all of it. Here a range
must be found through the key's own index, so the key has to be in the same order on both servers
as it stands: texts only where both sort them by the same collation of the same version.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import names
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile import expressions
from cdc_migrator.reconcile.chunks import orderable
from cdc_migrator.reconcile.pairs import Pair

Key = tuple[str, ...] | None

# How a text column is sorted; null where nobody can say that another server sorts so, too.
_COLLATIONS = """
SELECT a.attname::text, CASE WHEN l.collisdeterministic
    AND (p.version IS NOT NULL OR p.locale ~ '^(C|POSIX)($|\\.)')
    THEN concat_ws(' ', p.provider, p.locale, p.version) END
FROM pg_attribute a JOIN pg_collation l ON l.oid = a.attcollation
JOIN pg_database d ON d.datname = current_database(),
LATERAL (SELECT d.datlocprovider, pg_database_collation_actual_version(d.oid),
        coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', d.datcollate)
        WHERE l.collprovider = 'd'
    UNION ALL SELECT l.collprovider, pg_collation_actual_version(l.oid),
        coalesce(to_jsonb(l) ->> 'colllocale', to_jsonb(l) ->> 'colliculocale', l.collcollate)
        WHERE l.collprovider <> 'd') AS p (provider, version, locale)
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
"""


def in_common_order(source: psycopg.Connection, target: psycopg.Connection, pair: Pair) -> bool:
    """Whether the table has a key, and both servers put it into the same order."""
    if not pair.key or not pair.indexed or not all(orderable(column) for column in pair.key):
        return False
    here, there = (
        _collations(conn, pair.relation(on_target))
        for conn, on_target in ((source, False), (target, True))
    )
    own = [(pair.attribute(column, False), column.target.name) for column in pair.key]
    return all(
        here[name] is not None and here[name] == there[other] for name, other in own if name in here
    )


def _collations(conn: psycopg.Connection, table: TableName) -> dict[str | None, str | None]:
    return dict(conn.execute(_COLLATIONS, (names.table(table).as_string(conn),)).fetchall())


def within(pair: Pair, low: Key, high: Key, target: bool) -> sql.Composable:
    """SQL of the condition that a row lies in [low, high); ``true`` where all do."""
    place = _row([pair.place(column, target) for column in pair.key])
    edges = [
        sql.SQL("{} {} {}").format(place, sql.SQL(sign), _values(pair, edge, target))
        for sign, edge in ((">=", low), ("<", high))
        if edge is not None
    ]
    if not edges:
        return sql.SQL("true")
    condition = sql.SQL(" AND ").join(edges)
    if low is not None or all(column.on(target).not_null for column in pair.key):
        return condition
    # Only a target that lacks the key's constraint can have such rows.
    nulls = (sql.SQL("{} IS NULL").format(pair.place(c, target)) for c in pair.key)
    return sql.SQL("({} OR {})").format(condition, sql.SQL(" OR ").join(nulls))


def next_bound(
    source: psycopg.Connection,
    target: psycopg.Connection,
    pair: Pair,
    low: Key,
    high: Key,
    rows: int,
) -> Key:
    """Where a range from `low` on ends that has no more than so many rows on either side now.

    It ends at `high` at the latest.
    """
    for conn, on_target in ((source, False), (target, True)):
        own = [column.on(on_target) for column in pair.key]
        found = conn.execute(
            sql.SQL(
                "SELECT {key} FROM {of} WHERE {within} ORDER BY {order} OFFSET {rows} LIMIT 1"
            ).format(
                key=expressions.texts(own),
                of=pair.plain(on_target),
                within=within(pair, low, high, on_target),
                order=sql.SQL(", ").join(pair.place(column, on_target) for column in pair.key),
                rows=sql.Literal(rows),
            )
        ).fetchone()
        # A null sorts last, and is in the first range.
        if found is not None and None not in found:
            high = tuple(found)
    return high


def _values(pair: Pair, key: Sequence[str], target: bool) -> sql.Composable:
    return _row(
        [
            sql.SQL("{}::{}").format(sql.Literal(text), expressions.bare_type(column.on(target)))
            for column, text in zip(pair.key, key, strict=True)
        ]
    )


def _row(parts: Sequence[sql.Composable]) -> sql.Composable:
    return parts[0] if len(parts) == 1 else sql.SQL("ROW({})").format(sql.SQL(", ").join(parts))
