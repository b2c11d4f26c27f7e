"""Read both schemas and compare them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import psycopg

from cdc_migrator.backfill.diff.compare import compare
from cdc_migrator.backfill.diff.compare import renamed as compare_names
from cdc_migrator.backfill.diff.routes import unlike
from cdc_migrator.backfill.diff.scope import within
from cdc_migrator.backfill.excluded import beside, staying
from cdc_migrator.backfill.toc import ObjectId
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.parts.read import read_catalog
from cdc_migrator.errors import Refused
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.mapping import Route
from cdc_migrator.model.naming import Names
from cdc_migrator.model.parts import Catalog, Difference, Part, Severity
from cdc_migrator.model.tables import TableName
from cdc_migrator.model.wording import few

# Tables and partitioned tables that a user made, as excluded.sql sees them.
_TABLES = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""


def differences(
    source_dsn: str,
    target_dsn: str,
    names: Names,
    tables: Sequence[TableName],
    *,
    loaded: bool,
    grants: bool = False,
    deferred: bool = False,
    routes: Sequence[Route] = (),
) -> list[Difference]:
    """In what the target's schema is unlike the source's, for these tables and all around them.

    Compared are the objects in the schemas of these tables and what those depend on, but for
    what belongs to tables that are not migrated. Tables that only the target has are told.
    Changes nothing on either side.

    Args:
        tables: those that are to be alike.
        routes: of tables that are not; theirs on the target must have what they write.
        loaded: the load has ended; before that, missing keys and indexes are only information.
        grants: compare privileges and default privileges, too.
        deferred: foreign keys and triggers are made when the target is opened; before that,
            their absence is only information.

    Raises:
        Refused: CDCM-SCHEMA-DEPENDS.
    """
    with _both(source_dsn, target_dsn, names) as (source, target):
        return between(
            source, target, tables, loaded=loaded, grants=grants, deferred=deferred, routes=routes
        )


def between(
    source: psycopg.Connection,
    target: psycopg.Connection,
    tables: Sequence[TableName],
    *,
    loaded: bool,
    grants: bool = False,
    deferred: bool = False,
    routes: Sequence[Route] = (),
) -> list[Difference]:
    """`differences`, in sessions that are open already."""
    ours, theirs = read_both(source, target, tables, grants, {one.target for one in routes})
    found = compare(ours, theirs, loaded=loaded, deferred=deferred)
    return [*unlike(target, routes), *found]


def renamed(
    source_dsn: str, target_dsn: str, names: Names, tables: Sequence[TableName]
) -> set[ObjectId]:
    """The source's constraints and indexes that the target has under other names.

    Raises: as `differences`.
    """
    with _both(source_dsn, target_dsn, names) as (source, target):
        ours, theirs = read_both(source, target, tables)
    return {ours.parts[key].facts["object"] for key, _ in compare_names(ours, theirs)}


@contextmanager
def _both(
    source_dsn: str, target_dsn: str, names: Names
) -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    called = f"cdcm-{names.migration}-diff"
    with (
        connect(
            login(source_dsn, Role.VERIFY), application_name=called, side="source", read_only=True
        ) as source,
        connect(
            login(target_dsn, Role.VERIFY), application_name=called, side="target", read_only=True
        ) as target,
    ):
        yield source, target


def read_both(
    source: psycopg.Connection,
    target: psycopg.Connection,
    tables: Sequence[TableName],
    grants: bool = False,
    reshaped: Collection[TableName] = (),
) -> tuple[Catalog, Catalog]:
    """Both schemas as far as they are compared. Raises: as `differences`.

    Args:
        reshaped: the target's tables that are not to be like any of the source's.
    """
    with speaking("source", "reading its schema"):
        gone, _ = staying(source, tables)
        known = _tables(source)
        ours = read_catalog(source, gone, grants=grants)
    schemas = _schemas(ours, tables)
    ours = within(ours, schemas)
    with speaking("target", "reading its schema"):
        only = [t for t in _tables(target) - known - set(reshaped) if t.schema in schemas]
        moved = [
            TableName(part.schema or "", part.facts["relation"])
            for part in ours.parts.values()
            if part.kind == "table"
        ]
        theirs = read_catalog(target, beside(target, [*moved, *only]), grants=grants)
    return ours, _opposite(ours, theirs, schemas)


def require_alike(found: Collection[Difference]) -> None:
    """Go on only where every row can arrive.

    Raises:
        Refused: CDCM-SCHEMA-DIFFERS.
    """
    errors = [one for one in found if one.severity is Severity.ERROR]
    if errors:
        told = few(f"{one.kind} {one.object} ({one.attribute})" for one in errors)
        raise Refused(
            "CDCM-SCHEMA-DIFFERS",
            f"rows cannot arrive in the target's schema as they are on the source: {told}",
            "`cdc-migrator schema diff` shows every difference with the statement that mends it; "
            "mend those of severity `error`, then run the same command again.",
        )


def _tables(conn: psycopg.Connection) -> set[TableName]:
    return {TableName(*row) for row in conn.execute(_TABLES)}


def _schemas(catalog: Catalog, tables: Sequence[TableName]) -> set[str]:
    """The schemas of the tables, and of those that they are partitions of."""
    schemas = {table.schema for table in tables}
    partitions = [p for p in catalog.parts.values() if p.facts.get("partition")]
    for part in partitions:
        if part.schema in schemas:
            above: Part | None = part
            while above is not None and above.schema is not None:
                schemas.add(above.schema)
                above = catalog.parts.get(("table", above.attributes.get("parent", "")))
    return schemas


def _opposite(ours: Catalog, theirs: Catalog, schemas: Collection[str]) -> Catalog:
    """Of the target: what is in the same schemas, and what the source's parts are compared with."""
    inside = within(theirs, schemas)
    keys = set(inside.parts) | (set(ours.parts) & set(theirs.parts))
    names = {name for _, name in keys}
    keys |= {key for key, part in theirs.parts.items() if part.owner in names}
    return Catalog(
        {key: theirs.parts[key] for key in theirs.parts if key in keys},
        {key: theirs.depends[key] & keys for key in theirs.parts if key in keys},
        theirs.major,
    )


def script(found: Collection[Difference]) -> list[tuple[str, bool]]:
    """All mending statements in one order in which they run: (statement, is it destructive)."""
    statements = sorted(
        (statement for one in found for statement in one.statements), key=lambda s: s.place
    )
    once: dict[str, bool] = {}
    for statement in statements:
        once.setdefault(statement.sql, statement.destructive)
    return list(once.items())
