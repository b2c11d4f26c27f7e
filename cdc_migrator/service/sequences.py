"""The sequences of one migration: looked at, or set. Needs both databases and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from cdc_migrator.backfill import sequence_sync
from cdc_migrator.backfill.sequence_sync import Synced
from cdc_migrator.backfill.sequences import Decision
from cdc_migrator.control import load, migration, relations
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.destinations import destinations
from cdc_migrator.model.mapping import Wanted
from cdc_migrator.model.tables import TableName


@dataclass(frozen=True, slots=True)
class SequencesOptions:
    """Which migration, and where its databases are. The strings hold passwords.

    Attributes:
        wanted: what is said of tables that change their shape.
    """

    name: str
    source_dsn: str
    target_dsn: str
    include: Sequence[str]
    exclude: Sequence[str]
    margin: int
    wanted: Sequence[Wanted] = ()


def plan(options: SequencesOptions) -> list[Decision]:
    """What `sync` would do; changes nothing, and needs no migration to be there yet.

    Raises:
        MigratorError: a database does not answer or lacks a right; CDCM-TARGET-TAKEN.
    """
    with _both(options) as (source, target):
        with speaking("target", "reading the migration"):
            there = migration.find(target, options.name)
        tables, reshaped = _tables(options, source, target if there else None)
        return sequence_sync.plan(source, target, tables, options.margin, reshaped)


def sync(options: SequencesOptions) -> list[Synced]:
    """Set the target's sequences and look again; repeatable.

    Raises: as `plan`; Refused: CDCM-MIGRATION-MISSING.
    """
    with _both(options) as (source, target):
        with speaking("target", "reading the migration"):
            migration.require(target, options.name)
        tables, reshaped = _tables(options, source, target)
        return sequence_sync.sync(source, target, tables, options.margin, reshaped)


@contextmanager
def _both(options: SequencesOptions) -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    called = f"cdcm-{options.name}-sequences"
    with (
        connect(
            options.source_dsn, application_name=called, side="source", read_only=True
        ) as source,
        connect(options.target_dsn, application_name=called, side="target") as target,
    ):
        yield source, target


def _tables(
    options: SequencesOptions, source: psycopg.Connection, registered: psycopg.Connection | None
) -> tuple[list[TableName], list[TableName]]:
    """Those that capture wrote down; before that, those that the configuration chooses.

    First the tables that are on the target what they are on the source, then the target's others.
    """
    if registered is not None:
        with speaking("target", "reading the migration's tables"):
            known = load.read_tables(registered)
        if known:
            return relations.plain(known), relations.reshaped(known)
    with speaking("source", "reading its tables"):
        found = read_tables(source, options.include, options.exclude)
    going = destinations(options.wanted, found)
    others = {table for tables in going.values() for table in tables}
    return [one.name for one in found if one.name not in going], sorted(others)
