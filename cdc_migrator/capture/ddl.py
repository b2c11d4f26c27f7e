"""Have changes of the schema told in the stream, and know what tables are where it begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import psycopg
from psycopg import sql

from cdc_migrator.control import journal, migration, shapes
from cdc_migrator.databases.postgres import ddl_trigger, describe
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.model.tables import Table

LOOKED_FOR = (
    "changes of the schema will be found by looking: only a superuser may make event triggers"
)


def install(
    source: psycopg.Connection, target: psycopg.Connection, step: Callable[[str], None]
) -> bool:
    """Make the event triggers where the role may; whether they are up.

    To be called before the slot is made: whatever changes from then on is told in the stream.
    """
    with speaking("source", "making the event triggers"):
        there = ddl_trigger.up(source)
        if there and ddl_trigger.up_to_date(source):
            return True
        if not ddl_trigger.may_make(source):
            return there
        step("event triggers that tell of changes of the schema")
        with speaking("target", "writing the journal"):
            journal.write(target, "ddl-triggers-create")
        ddl_trigger.make(source)
    return True


def note(source: psycopg.Connection, target: psycopg.Connection, tables: Sequence[Table]) -> None:
    """Write down what the tables are in the slot's snapshot, or now where nobody holds that."""
    names = [table.name for table in tables]
    there = migration.read(target)
    with speaking("source", "describing the tables"):
        found = None
        if there is not None and there.snapshot_name is not None:
            try:
                with source.transaction():
                    source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    source.execute(
                        sql.SQL("SET TRANSACTION SNAPSHOT {}").format(there.snapshot_name)
                    )
                    found = describe.by_name(source, names)
            except (psycopg.errors.UndefinedObject, psycopg.errors.InvalidParameterValue):
                found = None
        if found is None:
            found = describe.by_name(source, names)
    with speaking("target", "writing down what the tables are"):
        shapes.note(target, found.values())
