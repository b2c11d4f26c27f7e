"""Look at both schemas of a migration, begun or not. Needs no Kafka and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cdc_migrator.backfill.diff.run import differences
from cdc_migrator.backfill.schema import Planned, plan
from cdc_migrator.backfill.schema_options import SchemaOptions
from cdc_migrator.control import deferring, load, migration
from cdc_migrator.control.migration import Phase
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.destinations import destinations
from cdc_migrator.model.mapping import Wanted
from cdc_migrator.model.naming import Names
from cdc_migrator.model.parts import Difference
from cdc_migrator.model.tables import Table, TableName
from cdc_migrator.service.mapping import missing


@dataclass(frozen=True, slots=True)
class Sides:
    """The two databases and which tables move. The strings hold passwords.

    Attributes:
        wanted: what is said of tables that change their shape: their schema is not compared.
    """

    name: str
    source_dsn: str
    target_dsn: str
    include: Sequence[str]
    exclude: Sequence[str]
    schema: SchemaOptions = field(default_factory=SchemaOptions)
    wanted: Sequence[Wanted] = ()


def diff_schemas(sides: Sides) -> list[Difference]:
    """In what the target's schema is unlike the source's.

    Until the migration streams, keys and indexes that are made after the load may be missing.

    Raises: as `backfill.diff.run.differences`.
    """
    with connect(
        sides.target_dsn, application_name=f"cdcm-{sides.name}-diff", side="target"
    ) as conn:
        there = migration.find(conn, sides.name)
        deferred = there is not None and deferring.waits(conn)
        known = load.read_tables(conn) if there is not None else []
    return differences(
        sides.source_dsn,
        sides.target_dsn,
        Names(sides.name),
        _alike(sides, _moving(sides)),
        loaded=there is not None and there.phase.reached(Phase.STREAM),
        grants=sides.schema.grants,
        deferred=deferred,
        routes=[one.route for one in known if one.route is not None],
    )


def plan_schema(sides: Sides) -> Planned:
    """What would be made on the target before the rows and after them.

    Raises: as `backfill.schema.plan`, and as `transform.making.missing_tables`.
    """
    found = _moving(sides)
    ends = (sides.source_dsn, sides.target_dsn)
    planned = plan(*ends, Names(sides.name), _alike(sides, found), sides.schema)
    mapped = missing(*ends, sides.name, sides.wanted, found)
    return replace(planned, before=(*planned.before, *mapped))


def _moving(sides: Sides) -> list[Table]:
    with connect(
        sides.source_dsn, application_name=f"cdcm-{sides.name}-diff", side="source"
    ) as conn:
        return read_tables(conn, sides.include, sides.exclude)


def _alike(sides: Sides, tables: Sequence[Table]) -> list[TableName]:
    """Those that are to be alike on both sides."""
    mapped = destinations(sides.wanted, tables)
    return [table.name for table in tables if table.name not in mapped]
