"""Look at both schemas of a migration, begun or not. Needs no Kafka and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cdc_migrator.backfill.diff.run import differences
from cdc_migrator.backfill.schema import Planned, SchemaOptions, plan
from cdc_migrator.control import deferring, migration
from cdc_migrator.control.migration import Phase
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.naming import Names
from cdc_migrator.model.parts import Difference
from cdc_migrator.model.tables import TableName


@dataclass(frozen=True, slots=True)
class Sides:
    """The two databases and which tables move. The strings hold passwords."""

    name: str
    source_dsn: str
    target_dsn: str
    include: Sequence[str]
    exclude: Sequence[str]
    schema: SchemaOptions = field(default_factory=SchemaOptions)


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
    return differences(
        sides.source_dsn,
        sides.target_dsn,
        Names(sides.name),
        _tables(sides),
        loaded=there is not None and there.phase.reached(Phase.STREAM),
        grants=sides.schema.grants,
        deferred=deferred,
    )


def plan_schema(sides: Sides) -> Planned:
    """What would be made on the target before the rows and after them.

    Raises: as `backfill.schema.plan`.
    """
    return plan(sides.source_dsn, sides.target_dsn, Names(sides.name), _tables(sides), sides.schema)


def _tables(sides: Sides) -> list[TableName]:
    with connect(
        sides.source_dsn, application_name=f"cdcm-{sides.name}-diff", side="source"
    ) as conn:
        return [table.name for table in read_tables(conn, sides.include, sides.exclude)]
