"""Fill materialized views: a schema's dump makes them empty, and reading an empty one fails."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from cdc_migrator.control import journal
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.naming import Names

_VIEWS = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND c.relispopulated = %s ORDER BY c.oid
"""


@dataclass(frozen=True, slots=True)
class Populated:
    """Views that were filled, and those that could not be, with the server's SQLSTATE."""

    filled: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]


def populate(source_dsn: str, target_dsn: str, names: Names) -> Populated:
    """Fill the target's empty materialized views, those they read from first.

    They hold what the tables hold now; how a view is kept fresh is the application's business.
    A view that is empty on the source, too, stays so: nobody fills it before its first refresh.
    """
    called = f"cdcm-{names.migration}-load"
    filled: list[str] = []
    failed: dict[str, str] = {}
    with (
        connect(source_dsn, application_name=called, side="source", read_only=True) as source,
        speaking("source", "looking at materialized views"),
    ):
        full = set(source.execute(_VIEWS, (True,)))
    with (
        connect(target_dsn, application_name=called, side="target") as target,
        speaking("target", "filling materialized views"),
    ):
        while True:
            before = len(filled)
            for schema, view in target.execute(_VIEWS, (False,)).fetchall():
                if (schema, view) not in full:
                    continue
                name = f"{schema}.{view}"
                try:
                    target.execute(
                        sql.SQL("REFRESH MATERIALIZED VIEW {}").format(sql.Identifier(schema, view))
                    )
                    filled.append(name)
                    failed.pop(name, None)
                except psycopg.Error as exc:
                    if target.closed:
                        raise
                    # It may read from one that comes later; the next turn tells.
                    failed[name] = exc.sqlstate or type(exc).__name__
            if len(filled) == before:
                break
        if filled or failed:
            journal.write(target, "views-filled", filled=filled, failed=failed)
    return Populated(tuple(filled), tuple(failed.items()))
