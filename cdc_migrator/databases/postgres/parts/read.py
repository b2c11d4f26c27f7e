"""Read every comparable part of a database, and what each cannot be without.

The session must come from `connect`: with its search_path the server's deparsers qualify every
name that is not in pg_catalog, so that texts of two servers can be compared and run again.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib.resources import files
from typing import NamedTuple

import psycopg

from cdc_migrator.model.parts import Catalog, Key, Part

_FAMILIES = ("types", "functions", "relations", "columns", "constraints", "triggers", "others")

_GRANTED = frozenset(
    {"schema", "table", "view", "materialized view", "column", "view column", "sequence"}
    | {"function", "procedure", "aggregate", "enumeration", "domain", "composite type"}
    | {"range type", "default privileges"}
)

ObjectId = tuple[int, int]  # catalog's oid, object's oid


class Privilege(NamedTuple):
    """What one role may do with one object. Roles are quoted for SQL, or ``PUBLIC``.

    Attributes:
        sub: number of the column; 0 for the object as a whole.
        unlike: the owner was given less or more than owners have by themselves.
    """

    catalog: int
    oid: int
    sub: int
    owner: str
    grantee: str
    privilege: str
    passed_on: bool
    grantor: str
    unlike: bool


def read_privileges(conn: psycopg.Connection) -> list[Privilege]:
    """All privileges on what users made, by object and role."""
    return [Privilege(*row) for row in conn.execute(_query("privileges"))]


def read_catalog(
    conn: psycopg.Connection, gone: Collection[ObjectId] = (), *, grants: bool = False
) -> Catalog:
    """All parts but the objects `gone` and what belongs to them; all of one moment.

    With `grants` the default privileges are parts, too, and each part on which something can be
    granted has the facts ``grants`` (roles, each with its privileges) and ``role`` (its owner).
    """
    families = (*_FAMILIES, "defaults") if grants else _FAMILIES
    held: dict[tuple[int, int, int], dict[str, list[str]]] = {}
    owning: dict[tuple[int, int], str] = {}
    parts: dict[Key, Part] = {}
    keys: dict[tuple[int, int, int], Key] = {}
    left_out: set[str] = set()
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        rows = [row for family in families for row in conn.execute(_query(family))]
        privileges = read_privileges(conn) if grants else []
        edges = conn.execute(_query("depends")).fetchall()
    for one in privileges:
        roles = held.setdefault((one.catalog, one.oid, one.sub), {})
        roles.setdefault(one.grantee, []).append(one.privilege + (" *" if one.passed_on else ""))
        owning[one.catalog, one.oid] = one.owner
    for _, catalog, oid, _, name, owner, *_ in rows:
        if (catalog, oid) in gone and owner is None:
            left_out.add(name)
    owners = {row[4] for row in rows if row[5] is None} - left_out
    for kind, catalog, oid, sub, name, owner, schema, address, drop, create, said, facts in rows:
        if (catalog, oid) in gone or (owner is not None and owner not in owners):
            continue
        attributes = {key: value for key, value in said.items() if value is not None}
        facts["object"] = (catalog, oid)
        if grants and kind in _GRANTED:
            facts["grants"] = held.get((catalog, oid, sub), {})
            facts["role"] = owning.get((catalog, oid), "")
        part = Part(kind, name, owner, schema, address, drop, tuple(create), attributes, facts)
        parts[part.key] = part
        keys[catalog, oid, sub] = part.key
    return Catalog(parts, _depends(parts, keys, edges), conn.info.server_version // 10000)


def _query(family: str) -> bytes:
    return files(__package__).joinpath(f"{family}.sql").read_bytes()


def _depends(
    parts: dict[Key, Part],
    keys: dict[tuple[int, int, int], Key],
    edges: Collection[tuple[int, int, int, int, int, int]],
) -> dict[Key, frozenset[Key]]:
    depends: dict[Key, set[Key]] = {key: set() for key in parts}
    owners = {part.name: part.key for part in parts.values() if part.owner is None}
    for part in parts.values():
        if part.owner is not None and part.owner in owners:
            depends[part.key].add(owners[part.owner])
    for catalog, oid, sub, other_catalog, other_oid, other_sub in edges:
        one = keys.get((catalog, oid, sub)) or keys.get((catalog, oid, 0))
        other = keys.get((other_catalog, other_oid, other_sub)) or keys.get(
            (other_catalog, other_oid, 0)
        )
        if one is None or other is None or one == other:
            continue
        if one[0] == "sequence" and other[0] in ("table", "column"):
            continue  # who owns a sequence is said once both are there
        depends[one].add(other)
        owner = parts[one].owner
        inside = parts[other].owner == owner or owners.get(owner or "") == other
        if one[0] in ("column", "attribute") and owner in owners and not inside:
            # A table is made with its columns, so it needs what they need.
            depends[owners[owner]].add(other)
    return {key: frozenset(others) for key, others in depends.items()}
