"""What a server's catalog says that rows must be: columns, keys, foreign keys, conditions, labels.

Of tables and partitioned tables; partitions go by the table that they are part of, and by their own
name. Reads only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import names
from cdc_migrator.model.tables import Column, TableName


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key as it is declared."""

    name: str
    columns: tuple[str, ...]
    table: TableName
    referenced: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """One table, or partitioned table.

    Attributes:
        columns: in attribute order.
        key: columns of the primary key; empty where there is none.
        unique: columns of each unique index that holds of all rows, the primary key's left out.
        foreign_keys, checks: as declared, and validated; a check with its name and expression.
        labels: of each column of an enum type its labels, in their order.
        rows: by the server's statistics; None where it has none.
        root: the partitioned table that it is part of; None where there is none.
        made: SQL of its rows where they are not just those of the table.
    """

    name: TableName
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    unique: tuple[tuple[str, ...], ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    checks: tuple[tuple[str, str], ...] = ()
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rows: int | None = None
    root: TableName | None = None
    made: sql.Composable | None = None

    @property
    def from_(self) -> sql.Composable:
        """SQL of its rows for FROM, to be given an alias."""
        return names.table(self.name) if self.made is None else self.made

    def column(self, name: str) -> Column | None:
        """The column called `name`; None where there is none."""
        return next((one for one in self.columns if one.name == name), None)


_OURS = """
    c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'
    AND n.nspname NOT IN ('information_schema', 'cdc_migrator')
"""
_RELATIONS = f"""
SELECT c.oid, n.nspname, c.relname, nullif(c.reltuples, -1)::int8, rn.nspname, r.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_class r ON c.relispartition AND r.oid = pg_partition_root(c.oid)
LEFT JOIN pg_namespace rn ON rn.oid = r.relnamespace
WHERE {_OURS} ORDER BY 2, 3
"""  # noqa: S608
_COLUMNS = f"""
WITH RECURSIVE attribute AS (
    SELECT a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull,
           a.attgenerated, a.attidentity
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE {_OURS} AND a.attnum > 0 AND NOT a.attisdropped
), resolved AS (
    SELECT attrelid, attnum, atttypid AS type FROM attribute
    UNION ALL
    SELECT r.attrelid, r.attnum, t.typbasetype
    FROM resolved r JOIN pg_type t ON t.oid = r.type WHERE t.typtype = 'd'
)
SELECT a.attrelid, a.attname, format_type(a.atttypid, a.atttypmod),
       bn.nspname || '.' || b.typname, b.typtype::text, en.nspname || '.' || e.typname,
       e.typtype::text, a.attnotnull, a.attgenerated <> '', a.attidentity::text,
       CASE WHEN b.typtype = 'e' THEN ARRAY(
           SELECT enumlabel::text FROM pg_enum WHERE enumtypid = b.oid ORDER BY enumsortorder) END
FROM attribute a
JOIN resolved r USING (attrelid, attnum)
JOIN pg_type b ON b.oid = r.type AND b.typtype <> 'd'
JOIN pg_namespace bn ON bn.oid = b.typnamespace
LEFT JOIN pg_type e ON e.oid = b.typelem AND b.typsubscript = 'array_subscript_handler'::regproc
LEFT JOIN pg_namespace en ON en.oid = e.typnamespace
ORDER BY a.attrelid, a.attnum
"""  # noqa: S608
_UNIQUE = """
SELECT i.indrelid, i.indisprimary,
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
             WHERE k.place <= i.indnkeyatts ORDER BY k.place)
FROM pg_index i WHERE i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
  AND NOT i.indnullsnotdistinct
ORDER BY i.indexrelid
"""
_CONSTRAINTS = """
SELECT k.conrelid, k.contype::text, k.conname, n.nspname, f.relname,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(attnum, place)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum
             ORDER BY u.place),
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(attnum, place)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum
             ORDER BY u.place),
       CASE WHEN k.contype = 'c' THEN pg_get_expr(k.conbin, k.conrelid) END
FROM pg_constraint k LEFT JOIN pg_class f ON f.oid = k.confrelid
LEFT JOIN pg_namespace n ON n.oid = f.relnamespace
WHERE k.contype IN ('c', 'f') AND k.convalidated AND k.conrelid <> 0 AND k.conparentid = 0
ORDER BY k.conrelid, k.conname
"""


def read_relations(conn: psycopg.Connection) -> dict[str, Relation]:
    """Every table of the database by ``schema.table``, in that order."""
    columns: dict[int, list[Column]] = {}
    labels: dict[int, dict[str, tuple[str, ...]]] = {}
    for oid, *facts, enum in conn.execute(_COLUMNS):
        columns.setdefault(oid, []).append(Column(*facts))
        if enum is not None:
            labels.setdefault(oid, {})[facts[0]] = tuple(enum)
    keys: dict[int, tuple[str, ...]] = {}
    unique: dict[int, list[tuple[str, ...]]] = {}
    for oid, primary, of in conn.execute(_UNIQUE):
        if primary:
            keys[oid] = tuple(of)
        else:
            unique.setdefault(oid, []).append(tuple(of))
    foreign: dict[int, list[ForeignKey]] = {}
    checks: dict[int, list[tuple[str, str]]] = {}
    for oid, kind, name, schema, table, of, referenced, expression in conn.execute(_CONSTRAINTS):
        if kind == "c":
            checks.setdefault(oid, []).append((name, expression))
        else:
            there = TableName(schema, table)
            foreign.setdefault(oid, []).append(
                ForeignKey(name, tuple(of), there, tuple(referenced))
            )
    found = (
        Relation(
            TableName(schema, name),
            tuple(columns.get(oid, ())),
            keys.get(oid, ()),
            tuple(unique.get(oid, ())),
            tuple(foreign.get(oid, ())),
            tuple(checks.get(oid, ())),
            labels.get(oid, {}),
            rows,
            TableName(above, root) if root else None,
        )
        for oid, schema, name, rows, above, root in conn.execute(_RELATIONS)
    )
    return {str(one.name): one for one in found}
