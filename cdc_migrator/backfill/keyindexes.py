"""Build the index of a key as any other index, and make it the key when it is there.

``ALTER TABLE … ADD PRIMARY KEY`` locks everybody out while it builds, so that a table's other
indexes wait. ``CREATE UNIQUE INDEX`` lets them be built beside it, and ``ADD CONSTRAINT … USING
INDEX`` takes a moment (https://www.postgresql.org/docs/current/sql-altertable.html). Who is killed
between the two leaves an index without its constraint: `adopt` makes it one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import psycopg

from cdc_migrator.backfill.toc import Entry, ObjectId
from cdc_migrator.databases.postgres.coded import speaking

# Left to pg_restore, which has more to say of them: keys that a table is clustered by or that are
# its replica identity. WITHOUT OVERLAPS is no b-tree, and knows no USING INDEX.
_KEYS = """
SELECT o.oid, pg_get_indexdef(i.indexrelid),
    format('ALTER TABLE ONLY %%I.%%I ADD CONSTRAINT %%I %%s USING INDEX %%I%%s%%s',
        n.nspname, c.relname, k.conname,
        CASE k.contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END, x.relname,
        CASE WHEN k.condeferrable THEN ' DEFERRABLE' END,
        CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' END),
    n.nspname, x.relname
FROM unnest(%s::oid[]) o(oid) JOIN pg_constraint k ON k.oid = o.oid
JOIN pg_index i ON i.indexrelid = k.conindid JOIN pg_class x ON x.oid = i.indexrelid
JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_am a ON a.oid = x.relam
WHERE k.contype IN ('p', 'u') AND c.relkind = 'r' AND a.amname = 'btree'
AND NOT i.indisclustered AND NOT i.indisreplident
"""

# Such an index, as it is on the target while it is not yet a constraint's.
_ALONE = """
SELECT o.number FROM unnest(%s::text[], %s::text[], %s::text[]) WITH ORDINALITY
    o(schema, name, definition, number)
JOIN pg_namespace n ON n.nspname = o.schema
JOIN pg_class x ON x.relnamespace = n.oid AND x.relname = o.name
JOIN pg_index i ON i.indexrelid = x.oid
WHERE i.indisvalid AND pg_get_indexdef(x.oid) = o.definition
AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.oid AND k.contype IN ('p', 'u'))
"""


@dataclass(frozen=True, slots=True)
class KeyIndex:
    """The index of a primary key or unique constraint: statements that build and promote it."""

    build: str
    promote: str
    schema: str
    name: str


def key_indexes(source: psycopg.Connection, entries: Collection[Entry]) -> dict[ObjectId, KeyIndex]:
    """The keys among `entries` that can be made in two steps, by their ids on the source.

    Raises:
        MigratorError: a server's error in coded form.
    """
    constraints = {
        entry.object[1]: entry.object
        for entry in entries
        if entry.kind == "CONSTRAINT" and entry.object is not None
    }
    with speaking("source", "reading its keys"):
        found = source.execute(_KEYS, (list(constraints),)).fetchall()
    return {constraints[oid]: KeyIndex(*told) for oid, *told in found}


def adopt(
    source: psycopg.Connection, target: psycopg.Connection, entries: Collection[Entry]
) -> set[ObjectId]:
    """Make those of `entries` constraints whose index stands on the target and is none yet.

    Returns:
        their ids on the source.

    Raises:
        MigratorError: a server's error in coded form.
    """
    known = key_indexes(source, entries)
    objects, keys = list(known), list(known.values())
    with speaking("target", "making keys of their indexes"):
        alone = target.execute(
            _ALONE,
            ([k.schema for k in keys], [k.name for k in keys], [k.build for k in keys]),
        ).fetchall()
        for (number,) in alone:
            target.execute(keys[number - 1].promote.encode())
    return {objects[number - 1] for (number,) in alone}
