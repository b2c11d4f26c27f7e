"""Look at a mapping without a migration: what becomes of rows, what fails, which tables lack.

Reads both sides and writes nothing; what the target lacks yet is taken to be made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psycopg

from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import ConfigurationError
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.mapping import Wanted
from cdc_migrator.model.tables import Table, TableName
from cdc_migrator.transform import making
from cdc_migrator.transform.compile import ways_of
from cdc_migrator.transform.entries import Place
from cdc_migrator.transform.faults import refusal
from cdc_migrator.transform.hook_trial import hook_trial
from cdc_migrator.transform.keys import Way
from cdc_migrator.transform.making import Missing
from cdc_migrator.transform.preview import Previewed, preview
from cdc_migrator.transform.trial import Tried, trial


@dataclass(frozen=True, slots=True)
class TransformOptions:
    """Which mapping is looked at. The strings hold passwords.

    Attributes:
        include, exclude: shell patterns of the tables that move.
        place: where a field of an entry stands, for messages.
    """

    name: str
    source_dsn: str
    target_dsn: str
    include: Sequence[str]
    exclude: Sequence[str]
    wanted: Sequence[Wanted]
    place: Place

    @property
    def called(self) -> str:
        return f"cdcm-{self.name}-transform"


@dataclass(frozen=True, slots=True)
class Preview:
    """Some rows of a table, and the routes that they are shown for."""

    ways: tuple[Way, ...]
    rows: tuple[Previewed, ...]


def previewed(options: TransformOptions, table: str, rows: int) -> Preview:
    """The first rows of a table before and after.

    Raises:
        ConfigurationError: CDCM-MAPPING-NONE: nothing speaks of the table; or as
            `transform.compile.compile_routes`.
        MigratorError: a database failed.
    """
    with _sessions(options) as (source, target):
        by_table: dict[TableName, list[Way]] = {}
        for one in _ways(options, source, target, table):
            by_table.setdefault(one.entry.table.name, []).append(one)
        # Of a partitioned table, the first partition that has any.
        for ways in by_table.values():
            routes = [one.route for one in ways]
            if found := preview(source, ways[0].entry.table, routes, rows):
                break
        return Preview(tuple(ways), tuple(found))


def tried(
    options: TransformOptions,
    table: str | None,
    examples: int,
    observe: Callable[[Way], None] = lambda _: None,
) -> list[Tried]:
    """What fails of each route over all rows of the source, table by table.

    Args:
        table: only this one.
        examples: so many keys of rows are named for each kind of failure.
        observe: told of each route before it is tried.

    Raises:
        MigratorError: as `previewed`.
    """
    with _sessions(options) as (source, target):
        found = []
        for one in _ways(options, source, target, table):
            observe(one)
            whole = trial(source, one.entry.table, one.there, one.route, examples)
            if one.route.hook is not None:
                failing = hook_trial(source, one.entry.table, one.there, one.route, examples)
                whole = replace(whole, failing=(*whole.failing, *failing))
            found.append(whole)
        return found


def missing(options: TransformOptions) -> list[Missing]:
    """The tables that the mapping goes to and the target lacks.

    Raises:
        MigratorError: as `previewed`.
    """
    with _sessions(options) as (source, target):
        _require(options)
        tables = _tables(options, source)
        return making.missing_tables(source, target, options.wanted, tables, options.place)


@contextmanager
def _sessions(
    options: TransformOptions,
) -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    here, there = login(options.source_dsn, Role.VERIFY), login(options.target_dsn, Role.APPLY)
    called = options.called
    with (
        connect(here, application_name=called, side="source", read_only=True) as source,
        connect(there, application_name=called, side="target", read_only=True) as target,
    ):
        yield source, target


def _tables(options: TransformOptions, source: psycopg.Connection) -> list[Table]:
    with speaking("source", "reading its tables"):
        return read_tables(source, options.include, options.exclude)


def _require(options: TransformOptions) -> None:
    if not options.wanted:
        raise _none("migration.yaml has no mapping")


def _ways(
    options: TransformOptions,
    source: psycopg.Connection,
    target: psycopg.Connection,
    table: str | None,
) -> list[Way]:
    """The routes of a table, or of all; rows are not put through them yet."""
    _require(options)
    tables = _tables(options, source)
    ways, faults = ways_of(source, target, options.wanted, tables, options.place, foreseen=True)
    if faults:
        raise refusal(faults)
    chosen = [one for one in ways if table is None or table in _names(one)]
    if not chosen:
        known = ", ".join(dict.fromkeys(_names(one)[-1] for one in ways))
        raise _none(f"no entry speaks of {table}; mapped are: {known}")
    return chosen


def _names(way: Way) -> list[str]:
    """By which a route's table goes, the one that its entry speaks of at the end."""
    table = way.entry.table
    return [str(table.name), *([str(table.root)] if way.entry.of_partition else [])]


def _none(cause: str) -> ConfigurationError:
    return ConfigurationError(
        "CDCM-MAPPING-NONE",
        cause,
        "Write entries under `mapping` in migration.yaml (docs/transform.md).",
    )
