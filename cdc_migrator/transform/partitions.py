"""Partitions of one table that go to one table of the target: which of its rows are whose.

A partition is a table of its own in the stream. What its rows have in common is its bounds: they
are turned into SQL over the target's row, by the server itself, and tell its rows from those of the
others wherever an ordinary merge would ask for a discriminator.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import names
from cdc_migrator.databases.postgres.coded import describe, speaking
from cdc_migrator.model.mapping import Bound, MappedColumn
from cdc_migrator.model.tables import TableName
from cdc_migrator.model.wording import few
from cdc_migrator.transform.entries import Place
from cdc_migrator.transform.faults import Fault
from cdc_migrator.transform.keys import Way, may_collide

# A row for each column that a partition is told by, those of the levels above it included.
_KEYS = """
SELECT n.nspname, c.relname, pg_get_partition_constraintdef(c.oid), p.partstrat::text,
       p.partnatts, a.attname::text, t.typnamespace::regnamespace || '.' || t.typname,
       coalesce(o.opcdefault, true), k.collated <> 0, coalesce(l.collisdeterministic, true)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL pg_partition_ancestors(c.oid) AS up(relid)
JOIN pg_partitioned_table p ON p.partrelid = up.relid
CROSS JOIN LATERAL unnest(p.partattrs::int2[], p.partclass::oid[], p.partcollation::oid[])
    AS k(attnum, operators, collated)
LEFT JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = k.attnum
LEFT JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_opclass o ON o.oid = k.operators
LEFT JOIN pg_collation l ON l.oid = k.collated
WHERE c.relispartition
  AND (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
"""
# What keeps rows of a table apart, with the columns that it holds against each other.
_UNIQUE = """
SELECT n.nspname, c.relname, x.relname,
       CASE WHEN i.indisexclusion THEN '{}' ELSE ARRAY(
           SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
           JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
           WHERE k.place <= i.indnkeyatts) END
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (i.indisunique OR i.indisexclusion)
  AND (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
ORDER BY x.relname
"""
# How PostgreSQL hashes a partition's key: what its own function asks the partitioned table for,
# which the target does not have.
_HASH_FUNCTIONS = {
    "pg_catalog.int2": "hashint8extended({}::int8, {})",
    "pg_catalog.int4": "hashint8extended({}::int8, {})",
    "pg_catalog.int8": "hashint8extended({}::int8, {})",
    "pg_catalog.text": "hashtextextended({}::text, {})",
    "pg_catalog.varchar": "hashtextextended({}::text, {})",
    "pg_catalog.uuid": "uuid_hash_extended({}, {})",
}
_HASH_SEED = 0x7A5B22367996DCFD
_HASH_MIXED = 0x49A0F4DD15E5A8E3
_HASHED = re.compile(
    r"satisfies_hash_partition\('\d+'::oid, (?P<modulus>\d+), (?P<remainder>\d+), "
    r'(?P<column>"(?:[^"]|"")+"|\w+)\)'
)
# A type or a schema that the target gets later.
_TO_COME = frozenset({"42704", "3F000"})


@dataclass(frozen=True, slots=True)
class Part:
    """What the source says of a partition.

    Attributes:
        condition: SQL over its row that is true of every row in it, and of no other partition's.
        columns: the columns that this reads.
        against: why nobody else can tell its rows; None: they can.
    """

    condition: str
    columns: tuple[str, ...]
    against: str | None


def bounded(
    source: psycopg.Connection,
    target: psycopg.Connection,
    ways: Sequence[Way],
    place: Place,
    foreseen: bool,
) -> tuple[list[Way], list[Fault]]:
    """The same ways, with the bounds of partitions whose table is mapped as a whole; what is wrong.

    Raises:
        MigratorError: a database failed.
    """
    with speaking("source", "reading the bounds of partitions"):
        parts = _read(source, [one.entry.table.name for one in ways if one.entry.of_partition])
    with speaking("target", "reading its unique indexes"):
        unique = _unique(target, [one.route.target for one in ways if one.entry.of_partition])
    found: list[Way] = []
    faults: dict[str, Fault] = {}
    for way in ways:
        part = parts.get(way.entry.table.name) if way.entry.of_partition else None
        if part is not None:
            way, wrong = _bounded(target, way, part, place, foreseen)
            wrong = wrong or _colliding(way, unique.get(way.route.target, {}), place)
            for one in wrong:
                # All partitions have the same to say, as a rule: once is enough.
                faults.setdefault(str(one), one)
        found.append(way)
    return found, list(faults.values())


def _read(source: psycopg.Connection, tables: Sequence[TableName]) -> dict[TableName, Part]:
    found: dict[TableName, Part] = {}
    where = [one.schema for one in tables], [one.name for one in tables]
    for schema, name, condition, *key in source.execute(_KEYS, where) if tables else ():
        table = TableName(schema, name)
        part = found.get(table, Part(condition or "true", (), None))
        column = key[2]
        columns = part.columns if column is None else tuple({*part.columns, column})
        against = part.against or _against(*key)
        found[table] = replace(part, columns=tuple(sorted(columns)), against=against)
        if key[0] == "h" and not against:
            condition = _unhashed(found[table].condition, column, key[3])
            found[table] = replace(found[table], condition=condition)
    return found


def _unique(
    target: psycopg.Connection, tables: Sequence[TableName]
) -> dict[TableName, dict[str, set[str]]]:
    """By their names, with their columns."""
    found: dict[TableName, dict[str, set[str]]] = {}
    where = [one.schema for one in tables], [one.name for one in tables]
    for schema, name, index, columns in target.execute(_UNIQUE, where) if tables else ():
        found.setdefault(TableName(schema, name), {})[index] = set(columns)
    return found


def _colliding(way: Way, unique: Mapping[str, set[str]], place: Place) -> list[Fault]:
    """Indexes in which a row could be in another one's way that has left for its partition: the
    one is read, or written, before the other is removed."""
    bound, table = way.route.bound, way.entry.table
    if bound is None:
        return []
    names_of = [name for name, columns in unique.items() if not columns.issuperset(bound.columns)]
    if not names_of:
        return []
    return [
        Fault(
            "CDCM-MAPPING-PARTITION",
            place(way.entry.number, "to"),
            f"unique index {few(names_of)} of {way.route.target} lacks {few(bound.columns)}, by "
            f"which {table.root} is partitioned: a row that moves from one partition to another "
            "would be in its own way",
            f"Let the index have {few(bound.columns)} as well; after the cutover it may be "
            "narrower.",
        )
    ]


def _against(
    strategy: str,
    number: int,
    column: str | None,
    base: str | None,
    usual: bool,
    collated: bool,
    exact: bool,
) -> str | None:
    """Why the target cannot tell by this column of the partition key."""
    if column is None:
        return "by an expression"
    if strategy == "h" and (number > 1 or not usual or base not in _HASH_FUNCTIONS):
        what = "several columns" if number > 1 else f"{column}, of a type or an operator class"
        return f"by hash of {what}" + ("" if number > 1 else " that is not reckoned here")
    if collated and not exact:
        return f"by {column}, whose collation takes different texts for the same"
    if collated and strategy == "r":
        return f"by ranges of {column}, whose order depends on the server's collation"
    return None


def _unhashed(condition: str, column: str, base: str) -> str:
    """A condition without PostgreSQL's function for hash partitions of this column."""

    def reckoned(found: re.Match[str]) -> str:
        name = found["column"]
        if name not in (column, sql.Identifier(column).as_string(None)):
            return found[0]
        value = _HASH_FUNCTIONS[base].format(name, _HASH_SEED)
        # Sums of unsigned 64 bits, of which an empty value adds nothing.
        mixed = f"coalesce({value}::numeric + {_HASH_MIXED + (1 << 65)}, 0) % {1 << 64}"
        return f"(({mixed}) % {found['modulus']} = {found['remainder']})"

    return _HASHED.sub(reckoned, condition)


def _bounded(
    target: psycopg.Connection, way: Way, part: Part, place: Place, foreseen: bool
) -> tuple[Way, list[Fault]]:
    table, route, number = way.entry.table, way.route, way.entry.number

    def fault(why: str, remedy: str) -> tuple[Way, list[Fault]]:
        return way, [Fault("CDCM-MAPPING-PARTITION", place(number, "table"), why, remedy)]

    if part.against is not None:
        return fault(
            f"{table.root} is partitioned {part.against}: {route.target} would not tell which "
            "partition a row is of",
            "Map each partition by its own name, with a discriminator under `set` that is part of "
            "the target's primary key, or to a table of its own.",
        )
    of: dict[str, MappedColumn] = {}
    for one in route.made:
        if one.of is not None:
            of.setdefault(one.of, one)
    lacking = [
        name
        for name in part.columns
        if name not in of or may_collide(table.column(name).base_type, of[name])
    ]
    if lacking:
        return fault(
            f"{table.root} is partitioned by {few(lacking)}, which does not go to {route.target} "
            "as it is: which partition a row is of could not be told there",
            "Let every column of the partition key go along as it is, renamed if need be.",
        )
    if table.key and not set(part.columns) <= set(table.key):
        return fault(
            f"the key of {table.name} ({', '.join(table.key)}) lacks "
            f"{few([name for name in part.columns if name not in table.key])}, by which "
            f"{table.root} is partitioned: keys of two partitions could be the same",
            f"Give {table.root} a primary key, or each partition one with these columns.",
        )
    columns = [(name, of[name]) for name in part.columns]
    with speaking("target", f"asking about the bounds of {table.name}"):
        try:
            condition = _translated(target, part.condition, columns)
        except psycopg.Error as exc:
            if (exc.sqlstate or "")[:2] not in ("42", "22", "0A", "3F"):
                raise
            if not (foreseen and exc.sqlstate in _TO_COME):
                return fault(
                    f"the bounds of {table.name} mean nothing to the target, which says: "
                    f"{describe(exc)}",
                    "Give the target the types of the partition key.",
                )
            condition = "true"
    assert table.root is not None
    bound = Bound(condition, tuple(one.name for _, one in columns), table.root)
    return replace(way, route=replace(route, bound=bound)), []


def _translated(
    target: psycopg.Connection, condition: str, columns: Sequence[tuple[str, MappedColumn]]
) -> str:
    """A condition over columns of the source as one over the target's: what the server makes of a
    table's own condition when its columns are renamed. Nothing of the asking stays.

    Raises psycopg.Error.
    """
    table = sql.Identifier("pg_temp", "cdcm_bound")
    # By names that are nobody's: two columns may change theirs over.
    between = [f"cdcm_{place}" for place in range(len(columns))]
    renamed = [(name, passing) for (name, _), passing in zip(columns, between, strict=True)]
    renamed += [(passing, one.name) for passing, (_, one) in zip(between, columns, strict=True)]
    defined = [
        sql.SQL("{} {}").format(sql.Identifier(name), names.type_name(one.type_text))
        for name, one in columns
    ]
    with target.transaction(force_rollback=True):
        target.execute("SET TRANSACTION READ WRITE")
        target.execute(
            sql.SQL("CREATE TEMP TABLE cdcm_bound ({}, CHECK (({})))").format(
                sql.SQL(", ").join(defined), sql.SQL(condition)
            )
        )
        for before, after in renamed:
            target.execute(
                sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
                    table, sql.Identifier(before), sql.Identifier(after)
                )
            )
        row = target.execute(
            "SELECT pg_get_expr(conbin, conrelid) FROM pg_constraint "
            "WHERE conrelid = 'pg_temp.cdcm_bound'::regclass AND contype = 'c'",
            prepare=False,
        ).fetchone()
    assert row is not None
    found: str = row[0]
    return found
