"""What the target's server brings along before anything is made there: extensions, `public`."""

from __future__ import annotations

from collections.abc import Collection

import psycopg

from cdc_migrator.backfill.toc import Entry
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.errors import Refused


def check_extensions(target: psycopg.Connection, entries: Collection[Entry]) -> None:
    """Raise Refused (CDCM-TARGET-EXTENSION) where one of the entries cannot be made there."""
    wanted = [e.label.split(" - ")[1] for e in entries if e.kind == "EXTENSION"]
    with speaking("target", "looking for extensions"):
        rows = target.execute("SELECT name::text FROM pg_available_extensions").fetchall()
    missing = sorted(set(wanted) - {row[0] for row in rows})
    if missing:
        raise Refused(
            "CDCM-TARGET-EXTENSION",
            f"the target's server does not have the extensions {', '.join(missing)}",
            "Install them on the target's server (or drop them on the source, if unused), then "
            "run the same command again.",
        )


def told_of_public(target: psycopg.Connection) -> set[str]:
    """In what the target's schema `public` is not as the server made it."""
    with speaking("target", "looking at its schema public"):
        rows = target.execute(
            "SELECT obj_description(n.oid, 'pg_namespace') = 'standard public schema', "
            "n.nspacl IS NOT DISTINCT FROM i.initprivs FROM pg_namespace n "
            "LEFT JOIN pg_init_privs i ON i.classoid = 'pg_namespace'::regclass "
            "AND i.objoid = n.oid "
            "WHERE n.nspname = 'public'"
        ).fetchall()
    new = {
        kind for row in rows for kind, plain in zip(("COMMENT", "ACL"), row, strict=True) if plain
    }
    return {"COMMENT", "ACL"} - new
