"""Which tables the publication names, and whether those that it names are the right ones."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from cdc_migrator.capture import slot as slots
from cdc_migrator.control import load, relations
from cdc_migrator.control.load import Joining
from cdc_migrator.databases.postgres import side
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.errors import Refused
from cdc_migrator.model.naming import Names
from cdc_migrator.model.tables import Table, TableName

ABORT = "Remove what there is with `cdc-migrator abort`, then start the migration again."
NEW = (
    "Type `cdc-migrator migrate --new-capture`: the target's rows stay, and only what differs is "
    "written."
)


def wanted(tables: Sequence[Table], names: Names) -> dict[TableName, list[str] | None]:
    """The tables of the publication, with their columns where it has not all of them.

    A table that sends whole rows beside its events needs none.
    """
    found: dict[TableName, list[str] | None] = {slots.MARKER: None, slots.HEARTBEAT: None}
    found |= {table.name: None for table in tables}
    for one in side.sides(tables, names.migration).values():
        found[one.name] = None
        if one.whole:
            del found[one.of.name]
        elif one.left_out:
            found[one.of.name] = [c.name for c in one.of.carried if c not in one.left_out]
    return found


def check(
    source: psycopg.Connection, target: psycopg.Connection, names: Names, tables: Sequence[Table]
) -> None:
    """See that slot and publication are there and that every registered table is captured.

    Args:
        tables: those that shall be captured. One that is not registered yet may join later
            (`join`); one that is registered must be among them.

    Raises:
        Refused: CDCM-SLOT-LOST, CDCM-PUBLICATION-LOST, CDCM-CAPTURE-TABLES.
    """
    with speaking("source", "looking at the publication and the slot"):
        published = slots.published(source, names.publication)
        slot = slots.read(source, names.slot)
    if slot is None or slot.wal_status == "lost":
        raise Refused(
            "CDCM-SLOT-LOST",
            f"the replication slot {names.slot} is gone or the source has removed its log: "
            "changes are missing from the stream for good",
            NEW,
        )
    if published is None:
        raise Refused(
            "CDCM-PUBLICATION-LOST",
            f"the publication {names.publication} is gone: changes may be missing from the stream",
            NEW,
        )
    with speaking("target", "reading the tables of the migration"):
        registered = relations.joining(load.read_tables(target))
    known = [table for table in tables if table.name in registered]
    captured = [table for table in known if registered[table.name] is not Joining.PUBLISHING]
    differing = registered.keys() - {table.name for table in tables}
    differing |= wanted(captured, names).keys() - published
    differing |= published - wanted(known, names).keys()
    if differing:
        told = ", ".join(str(name) for name in sorted(differing))
        raise Refused(
            "CDCM-CAPTURE-TABLES",
            f"the tables to capture are not those that are captured; they differ in {told}",
            "Put `tables` in migration.yaml back so that it names them, or: " + ABORT,
        )
