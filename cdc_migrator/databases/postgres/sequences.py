"""Read sequences: parameters and positions of all in two queries, and how far their columns are.

Reads only, and calls no ``nextval``. Sessions come from `connect`.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import names
from cdc_migrator.model.sequences import Fed, Parameters, Position, SequenceName, SequenceState
from cdc_migrator.model.tables import TableName

# A sequence that was never called has no last value here, and so has one that the role may not
# read; the second is told apart by its privileges, the first is looked at by `_uncalled`.
_SEQUENCES = """
SELECT c.oid, n.nspname, c.relname, format_type(s.seqtypid, NULL), s.seqstart, s.seqmin, s.seqmax,
       s.seqincrement, s.seqcycle, s.seqcache,
       has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT'),
       has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'UPDATE'),
       CASE WHEN has_sequence_privilege(c.oid, 'SELECT,USAGE')
            THEN pg_sequence_last_value(c.oid) END
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cdc_migrator')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                  AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY n.nspname, c.relname
"""

# Identity columns and owners depend the one way, defaults the other; what a default says wins
# over what an owner could have. A partition is left out where its whole table is there.
_FEEDS = r"""
WITH RECURSIVE link AS (
    SELECT d.objid AS sequence, d.refobjid AS relation, d.refobjsubid::int2 AS attnum,
           true AS plain, 1 AS weight
    FROM pg_depend d JOIN pg_sequence s ON s.seqrelid = d.objid
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
      AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
    UNION ALL
    SELECT d.refobjid, a.adrelid, a.adnum,
           pg_get_expr(a.adbin, a.adrelid)
               ~ '^nextval\(''([^'']|'''')+''::regclass\)(::[a-z]+)?$', 2
    FROM pg_depend d JOIN pg_sequence s ON s.seqrelid = d.refobjid
    JOIN pg_attrdef a ON a.oid = d.objid
    WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
), best AS (
    SELECT DISTINCT ON (sequence, relation, attnum) * FROM link
    ORDER BY sequence, relation, attnum, weight DESC
), typed AS (
    SELECT b.sequence, b.relation, b.attnum, b.plain, a.attname, a.atttypid AS type
    FROM best b JOIN pg_attribute a ON a.attrelid = b.relation AND a.attnum = b.attnum
    UNION ALL
    SELECT y.sequence, y.relation, y.attnum, y.plain, y.attname, t.typbasetype
    FROM typed y JOIN pg_type t ON t.oid = y.type WHERE t.typtype = 'd'
)
SELECT y.sequence, n.nspname, c.relname, y.attname, bn.nspname || '.' || b.typname, y.plain
FROM typed y
JOIN pg_class c ON c.oid = y.relation AND c.relkind IN ('r', 'p')
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_type b ON b.oid = y.type AND b.typtype <> 'd'
JOIN pg_namespace bn ON bn.oid = b.typnamespace
WHERE NOT c.relispartition OR NOT EXISTS (
    SELECT FROM typed r WHERE r.sequence = y.sequence AND r.attname = y.attname
    AND r.relation = pg_partition_root(c.oid))
ORDER BY 2, 3, 4
"""

_AT_A_TIME = 200


def read_sequences(conn: psycopg.Connection) -> list[SequenceState]:
    """All sequences that are not an extension's, the migrator's own or temporary, in name order."""
    feeds: dict[int, list[Fed]] = {}
    for oid, schema, table, column, base_type, plain in conn.execute(_FEEDS):
        feeds.setdefault(oid, []).append(Fed(TableName(schema, table), column, base_type, plain))
    rows = conn.execute(_SEQUENCES).fetchall()
    uncalled = {row[0]: SequenceName(row[1], row[2]) for row in rows if row[12] is None and row[10]}
    positions = _uncalled(conn, uncalled)
    return [
        SequenceState(
            oid=oid,
            name=SequenceName(schema, name),
            parameters=Parameters(*parameters),
            position=positions.get(oid) if last is None else Position(last, True),
            feeds=tuple(feeds.get(oid, ())),
            settable=settable,
        )
        for oid, schema, name, *parameters, _readable, settable, last in rows
    ]


def _uncalled(conn: psycopg.Connection, named: dict[int, SequenceName]) -> dict[int, Position]:
    """Positions of sequences that were not called since they were made or set."""
    positions = {}
    oids = list(named)
    for at in range(0, len(oids), _AT_A_TIME):
        query = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {}::int8, last_value, is_called FROM {}").format(
                sql.Literal(oid), names.table(named[oid])
            )
            for oid in oids[at : at + _AT_A_TIME]
        )
        for oid, last, called in conn.execute(query):
            positions[oid] = Position(last, called)
    return positions


def partition_roots(conn: psycopg.Connection, tables: Sequence[TableName]) -> list[TableName]:
    """These tables, and the partitioned tables that some of them are leaves of."""
    rows = conn.execute(
        "SELECT DISTINCT n.nspname, c.relname "
        "FROM unnest(%s::text[], %s::text[]) AS i(schema, name) "
        "JOIN pg_namespace m ON m.nspname = i.schema "
        "JOIN pg_class l ON l.relnamespace = m.oid AND l.relname = i.name "
        "JOIN LATERAL (SELECT l.oid UNION SELECT relid FROM pg_partition_ancestors(l.oid)) a "
        "ON true JOIN pg_class c ON c.oid = a.oid JOIN pg_namespace n ON n.oid = c.relnamespace",
        ([t.schema for t in tables], [t.name for t in tables]),
    )
    return [TableName(schema, name) for schema, name in rows]


def existing_columns(
    conn: psycopg.Connection, columns: Sequence[Fed]
) -> set[tuple[TableName, str]]:
    """Which of these columns this database has."""
    rows = conn.execute(
        "SELECT DISTINCT n.nspname, c.relname, a.attname "
        "FROM unnest(%s::text[], %s::text[], %s::text[]) AS i(schema, name, attname) "
        "JOIN pg_namespace n ON n.nspname = i.schema "
        "JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = i.name "
        "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = i.attname "
        "WHERE NOT a.attisdropped AND a.attnum > 0",
        (
            [fed.table.schema for fed in columns],
            [fed.table.name for fed in columns],
            [fed.column for fed in columns],
        ),
    )
    return {(TableName(schema, table), column) for schema, table, column in rows}


def furthest(conn: psycopg.Connection, fed: Fed, parameters: Parameters) -> int | None:
    """The column's value that is furthest in the sequence's direction; None where there is none.

    Only values inside the sequence's range: it cannot collide with the others. An index on the
    column answers at once, without one the table is read.
    """
    up = parameters.increment > 0
    query = sql.SQL(
        "SELECT {rounded}({outermost}({column})::numeric)::int8 FROM {table} "
        "WHERE {column} >= {least}::int8 AND {column} <= {most}::int8"
    ).format(
        rounded=sql.SQL("floor" if up else "ceil"),
        outermost=sql.SQL("max" if up else "min"),
        column=sql.Identifier(fed.column),
        table=names.table(fed.table),
        # No parameters: a percent sign in a column's name would be taken for one.
        least=sql.Literal(str(parameters.minimum)),
        most=sql.Literal(str(parameters.maximum)),
    )
    row = conn.execute(query).fetchone()
    return row[0] if row else None


def move(conn: psycopg.Connection, wanted: Sequence[tuple[int, Position, int]]) -> list[int]:
    """Set sequences; one that was called meanwhile and is past its wanted value stays.

    Args:
        wanted: for each its oid, the position, and the direction in which it must not be moved
            back: 1, -1, or 0 where it cycles, which has no back.

    Returns:
        the oids of those that were set.
    """
    rows = conn.execute(
        "SELECT w.oid, setval(w.oid::oid::regclass, w.last, w.called) "
        "FROM unnest(%s::int8[], %s::int8[], %s::bool[], %s::int8[]) "
        "AS w(oid, last, called, direction) "
        "WHERE coalesce((pg_sequence_last_value(w.oid::oid)::numeric - w.last) * w.direction, -1) "
        "<= CASE WHEN w.called OR w.direction = 0 THEN 0 ELSE -1 END",
        (
            [oid for oid, _, _ in wanted],
            [position.last for _, position, _ in wanted],
            [position.called for _, position, _ in wanted],
            [direction for _, _, direction in wanted],
        ),
    )
    return [row[0] for row in rows]


def alter(
    conn: psycopg.Connection, name: SequenceName, parameters: Parameters, restart: int | None
) -> None:
    """Give a sequence these parameters; `restart` where its position lies outside of them."""
    statement = sql.SQL(
        "ALTER SEQUENCE {name} AS {type} INCREMENT BY {increment} MINVALUE {minimum} "
        "MAXVALUE {maximum} START WITH {start} CACHE {cache} {cycle}{restart}"
    ).format(
        name=names.table(name),
        type=names.type_name(parameters.type),
        increment=sql.Literal(parameters.increment),
        minimum=sql.Literal(parameters.minimum),
        maximum=sql.Literal(parameters.maximum),
        start=sql.Literal(parameters.start),
        cache=sql.Literal(parameters.cache),
        cycle=sql.SQL("CYCLE" if parameters.cycle else "NO CYCLE"),
        restart=sql.SQL("")
        if restart is None
        else sql.SQL(" RESTART WITH {}").format(sql.Literal(restart)),
    )
    conn.execute(statement)
