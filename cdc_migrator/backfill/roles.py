"""See that the target has the roles that are named by what is to be made there; none is made."""

from __future__ import annotations

from collections.abc import Collection

import psycopg

from cdc_migrator.backfill.toc import Entry, ObjectId
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.parts.read import read_privileges
from cdc_migrator.errors import Refused

_POLICIES = """
SELECT DISTINCT 'pg_policy'::regclass::oid::int8, p.oid::int8, r.rolname::text
FROM pg_policy p CROSS JOIN unnest(p.polroles) AS named(oid) JOIN pg_roles r ON r.oid = named.oid
"""
_DEFAULTS = """
SELECT 'pg_default_acl'::regclass::oid::int8, d.oid::int8, r.rolname::text
FROM pg_default_acl d JOIN pg_roles r ON r.oid = d.defaclrole
"""
_PUBLIC = "SELECT 'pg_namespace'::regclass::oid::int8, 'public'::regnamespace::oid::int8"


def require(
    source: psycopg.Connection,
    target: psycopg.Connection,
    entries: Collection[Entry],
    grants: bool,
) -> None:
    """Look for the roles in the policies, and with `grants` in the privileges, of `entries`.

    Raises:
        Refused: CDCM-TARGET-ROLES.
    """
    made = {entry.object for entry in entries if entry.object is not None}
    with speaking("source", "reading which roles its schema names"):
        named = _named(source, made, entries, grants)
    with speaking("target", "looking for roles"):
        there = {row[0] for row in target.execute("SELECT rolname::text FROM pg_roles")}
    missing = sorted(named - there)
    if missing:
        raise Refused(
            "CDCM-TARGET-ROLES",
            f"the target does not have the roles {', '.join(missing)}, which "
            f"{'grants and policies' if grants else 'policies'} of the source name",
            "CREATE ROLE each of them on the target (`pg_dumpall --roles-only` writes the "
            "statements), then run the same command again"
            + ("; or go without grants." if grants else "."),
        )


def _named(
    source: psycopg.Connection, made: set[ObjectId], entries: Collection[Entry], grants: bool
) -> set[str]:
    policies = source.execute(_POLICIES).fetchall()
    named = {role for catalog, oid, role in policies if (catalog, oid) in made}
    if not grants:
        return named
    objects = set(made)
    if any(entry.of_public for entry in entries):
        objects |= {(row[0], row[1]) for row in source.execute(_PUBLIC)}
    named |= {role for catalog, oid, role in source.execute(_DEFAULTS) if (catalog, oid) in objects}
    quoted = set()
    for one in read_privileges(source):
        if (one.catalog, one.oid) in objects:
            quoted |= {one.grantee} - {"PUBLIC", one.owner}
            quoted |= {one.grantor} - {one.owner}
            quoted |= {one.owner} if one.unlike else set()
    rows = source.execute(
        "SELECT rolname::text FROM pg_roles WHERE quote_ident(rolname) = ANY (%s)", (list(quoted),)
    )
    return named | {row[0] for row in rows}
