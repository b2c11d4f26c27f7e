"""Read the catalog: tables with their columns and identity, and facts about the server.

Reads only; what follows from the facts is decided elsewhere. Sessions come from `connect`, so
``format_type`` qualifies every name that is not in pg_catalog.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import psycopg
from psycopg.rows import class_row

from cdc_migrator.databases.postgres import names
from cdc_migrator.model.tables import Column, ReplicaIdentity, Table, TableName

# Ordinary tables and leaf partitions that the write-ahead log describes; tables that belong to
# an extension are made by CREATE EXTENSION on the other side.
_OURS = """
    c.relkind = 'r' AND c.relpersistence = 'p'
    AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cdc_migrator')
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                    AND d.objid = c.oid AND d.deptype = 'e')
"""

# A deferrable primary key is not taken as the key: PostgreSQL does not use it as a replica
# identity either, and for a moment two rows may have the same one.
_TABLES = f"""
SELECT c.oid, n.nspname, c.relname, c.relreplident::text, rn.nspname, r.relname,
       greatest(c.reltuples, 0)::int8, coalesce(pg_table_size(c.oid), 0), c.relkind = 'p',
       coalesce((
           SELECT array_agg(a.attname::text ORDER BY k.place)
           FROM (SELECT i.indkey, i.indnkeyatts FROM pg_index i WHERE i.indrelid = c.oid
                 AND (i.indisprimary OR (i.indisreplident AND c.relreplident = 'i'))
                 AND i.indimmediate
                 ORDER BY i.indisprimary DESC LIMIT 1) i,
                unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
           WHERE k.place <= i.indnkeyatts), '{{}}')
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_class r ON c.relispartition AND r.oid = pg_partition_root(c.oid)
LEFT JOIN pg_namespace rn ON rn.oid = r.relnamespace
WHERE {_OURS}
ORDER BY 2, 3
"""  # noqa: S608

_COLUMNS = f"""
WITH RECURSIVE attribute AS (
    SELECT a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull,
           a.attgenerated, a.attidentity
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE {_OURS} AND a.attnum > 0 AND NOT a.attisdropped
), resolved AS (
    SELECT attrelid, attnum, atttypid AS type, atttypmod AS modifier FROM attribute
    UNION ALL
    SELECT r.attrelid, r.attnum, t.typbasetype,
           CASE WHEN t.typtypmod = -1 THEN r.modifier ELSE t.typtypmod END
    FROM resolved r JOIN pg_type t ON t.oid = r.type WHERE t.typtype = 'd'
)
SELECT a.attrelid, a.attname, format_type(a.atttypid, a.atttypmod),
       bn.nspname || '.' || b.typname, b.typtype::text,
       en.nspname || '.' || e.typname, e.typtype::text,
       a.attnotnull, a.attgenerated <> '', a.attidentity::text,
       CASE WHEN b.oid = 'bit'::regtype AND r.modifier > 0 THEN r.modifier END
FROM attribute a
JOIN resolved r USING (attrelid, attnum)
JOIN pg_type b ON b.oid = r.type AND b.typtype <> 'd'
JOIN pg_namespace bn ON bn.oid = b.typnamespace
LEFT JOIN pg_type e ON e.oid = b.typelem AND b.typsubscript = 'array_subscript_handler'::regproc
LEFT JOIN pg_namespace en ON en.oid = e.typnamespace
ORDER BY a.attrelid, a.attnum
"""  # noqa: S608


def read_tables(
    conn: psycopg.Connection,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
) -> list[Table]:
    """All ordinary tables and leaf partitions that can be captured, in name order.

    Args:
        include, exclude: shell patterns over ``schema.table`` (``shop.*``); a partition is
            also chosen by the name of its partitioned table. None includes all.
    """
    return [one for one in _read(conn, _TABLES, _COLUMNS) if _chosen(one, include, exclude)]


def read_targets(conn: psycopg.Connection) -> dict[TableName, Table]:
    """What rows of another shape can be written to: all of `read_tables`, and partitioned ones."""
    tables, columns = (
        query.replace("c.relkind = 'r'", "c.relkind IN ('r', 'p')") for query in (_TABLES, _COLUMNS)
    )
    return {one.name: one for one in _read(conn, tables, columns)}


def _read(conn: psycopg.Connection, of_tables: str, of_columns: str) -> Iterator[Table]:
    columns: dict[int, list[Column]] = {}
    for oid, *facts in conn.execute(of_columns.encode()):
        columns.setdefault(oid, []).append(Column(*facts))
    for oid, schema, name, identity, above, root, rows, size, divided, key in conn.execute(
        of_tables.encode()
    ):
        yield Table(
            name=TableName(schema, name),
            columns=tuple(columns.get(oid, ())),
            key=tuple(key),
            replica_identity=ReplicaIdentity(identity),
            root=TableName(above, root) if root else None,
            estimated_rows=rows,
            bytes=size,
            divided=divided,
        )


_NAMES = f"""
SELECT n.nspname || '.' || c.relname, rn.nspname || '.' || r.relname
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_class r ON c.relispartition AND r.oid = pg_partition_root(c.oid)
LEFT JOIN pg_namespace rn ON rn.oid = r.relnamespace
WHERE {_OURS}
ORDER BY n.nspname, c.relname
"""  # noqa: S608


def table_names(conn: psycopg.Connection) -> list[tuple[str, ...]]:
    """The names by which each table that can be captured is chosen (`chosen`), its own first."""
    rows = conn.execute(_NAMES).fetchall()
    return [tuple(name for name in row if name is not None) for row in rows]


def _chosen(table: Table, include: Sequence[str] | None, exclude: Sequence[str]) -> bool:
    names = [str(table.name)] + ([str(table.root)] if table.root else [])
    return chosen(names, include, exclude)


def chosen(names: Sequence[str], include: Sequence[str] | None, exclude: Sequence[str]) -> bool:
    """Whether a table is chosen that goes by these names; patterns as in `read_tables`."""

    def matches(patterns: Iterable[str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)

    return (include is None or matches(include)) and not matches(exclude)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says about itself.

    `system_identifier` is None where the role may not read it; `timeline`, that is written now, is
    None on a standby; `max_slot_wal_keep_bytes` is None where nothing limits it.
    """

    version_num: int
    version: str
    database: str
    encoding: str
    wal_level: str
    in_recovery: bool
    system_identifier: str | None
    timeline: int | None
    slots_used: int
    slots_allowed: int
    senders_used: int
    senders_allowed: int
    max_slot_wal_keep_bytes: int | None
    superuser: bool
    may_replicate: bool


_FACTS = """
SELECT current_setting('server_version_num')::int AS version_num,
       current_setting('server_version') AS version, current_database()::text AS database,
       current_setting('server_encoding') AS encoding, current_setting('wal_level') AS wal_level,
       pg_is_in_recovery() AS in_recovery,
       CASE WHEN has_function_privilege('pg_control_system()', 'EXECUTE')
            THEN (SELECT system_identifier::text FROM pg_control_system()) END
            AS system_identifier,
       CASE WHEN NOT pg_is_in_recovery()
            THEN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END
            AS timeline,
       (SELECT count(*) FROM pg_replication_slots) AS slots_used,
       current_setting('max_replication_slots')::int AS slots_allowed,
       (SELECT count(*) FROM pg_stat_replication) AS senders_used,
       current_setting('max_wal_senders')::int AS senders_allowed,
       (SELECT nullif(setting::int8, -1) * 1024 * 1024 FROM pg_settings
        WHERE name = 'max_slot_wal_keep_size') AS max_slot_wal_keep_bytes,
       r.rolsuper AS superuser, r.rolsuper OR r.rolreplication AS may_replicate
FROM pg_roles r WHERE r.rolname = current_user
"""


def server_facts(conn: psycopg.Connection) -> ServerFacts:
    """Version, settings and identity of the server behind `conn`."""
    with conn.cursor(row_factory=class_row(ServerFacts)) as cursor:
        facts = cursor.execute(_FACTS).fetchone()
    assert facts is not None
    return facts


@dataclass(frozen=True, slots=True)
class Identity:
    """How the rows of one target table can be found and kept apart.

    Attributes:
        arbiter: a unique index on exactly the key columns can decide ON CONFLICT.
        indexed: some btree index leads with the key columns, so looking rows up is cheap.
        rivals: there are other unique or exclusion constraints that a statement's order of
            rows may violate for a moment.
    """

    arbiter: bool
    indexed: bool
    rivals: bool


_INDEXES = """
SELECT i.indisunique, i.indimmediate, i.indisexclusion, i.indpred IS NOT NULL,
       i.indexprs IS NOT NULL, am.amname = 'btree',
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
             WHERE k.place <= i.indnkeyatts ORDER BY k.place)
FROM pg_index i
JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am am ON am.oid = x.relam
JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND i.indisvalid AND i.indislive
"""


def identity(conn: psycopg.Connection, name: TableName, key: Sequence[str]) -> Identity:
    """Look at the indexes of a table for the ways to its rows by `key` (may be empty)."""
    arbiter = indexed = rivals = False
    wanted = set(key)
    rows = conn.execute(_INDEXES, (name.schema, name.name)).fetchall()
    for unique, immediate, exclusion, partial, expressions, btree, columns in rows:
        whole = bool(wanted) and not partial and not expressions
        if whole and btree and set(columns[: len(wanted)]) == wanted:
            indexed = True
        if whole and unique and immediate and not exclusion and set(columns) == wanted:
            arbiter = True
        elif unique or exclusion:
            rivals = True
    return Identity(arbiter, indexed, rivals)


@dataclass(frozen=True, slots=True)
class IdentityProblem:
    """Why the rows of a table cannot be told apart in the stream, and what helps."""

    table: TableName
    reason: str
    remedy: str


_OTHER_IDENTITY = f"""
SELECT n.nspname, c.relname,
       EXISTS (SELECT FROM pg_index p WHERE p.indrelid = c.oid AND p.indisprimary),
       (SELECT count(*) FROM pg_index u WHERE u.indrelid = c.oid AND u.indisunique)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_index i ON i.indrelid = c.oid AND i.indisreplident AND NOT i.indisprimary
WHERE {_OURS} AND c.relreplident = 'i'
"""  # noqa: S608


def identity_problems(conn: psycopg.Connection, tables: Sequence[Table]) -> list[IdentityProblem]:
    """Tables whose updates and deletes would not say which row they mean.

    Publishing a table without a replica identity makes the source refuse the application's
    own updates and deletes, so this must be looked at before the publication is made.
    """
    full = "ALTER TABLE {} REPLICA IDENTITY FULL"
    odd = {
        TableName(schema, name): (has_primary, uniques)
        for schema, name, has_primary, uniques in conn.execute(_OTHER_IDENTITY)
    }
    problems = []
    for table in tables:
        quoted = names.table(table.name).as_string(conn)
        remedy = full.format(quoted)
        if table.name in odd:
            has_primary, uniques = odd[table.name]
            if has_primary:
                reason = "its replica identity is an index other than its primary key"
                problems.append(
                    IdentityProblem(
                        table.name, reason, f"ALTER TABLE {quoted} REPLICA IDENTITY DEFAULT"
                    )
                )
            elif uniques > 1:
                reason = "it has several unique indexes and no primary key"
                problems.append(IdentityProblem(table.name, reason, remedy))
        elif table.replica_identity is ReplicaIdentity.NOTHING or (
            not table.key and table.replica_identity is not ReplicaIdentity.FULL
        ):
            problems.append(IdentityProblem(table.name, "it has no replica identity", remedy))
    return problems
