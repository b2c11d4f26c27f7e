"""The tables that the stream is applied to, and those that are on their way into it.

What a table is was noted for the stream's position: the source's catalog may be further on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import psycopg
import structlog

from cdc_migrator.apply.ddl import Stops
from cdc_migrator.apply.shape import Reread
from cdc_migrator.control import load, shapes
from cdc_migrator.control.load import LoadState, TableLoad
from cdc_migrator.databases.postgres import describe
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.side import Side, sides
from cdc_migrator.errors import Failed, Refused
from cdc_migrator.model.described import Described
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.mapping import Route
from cdc_migrator.model.positions import Snapshot, lsn_to_int
from cdc_migrator.model.tables import Table, TableName

_log = structlog.get_logger("cdc_migrator.service")


@dataclass(frozen=True, slots=True)
class Registry:
    """What the target knows of the migration's tables.

    Attributes:
        tables: those that changes are applied to, as the source has them; `sides` are of them.
        rereads: by the names of the tables' rows in the migration.
        routes: of those that become others, by these names.
        joining: names, as the stream has them, of tables that are being added (side tables
            among them): their changes must wait.
        shapes: what each of them is, by its oid on the source; those that are being added as well.
        settled: markers of changes of the schema that they have already.
        passed: up to this commit position nothing is written, whatever was lost of it.
    """

    tables: tuple[Table, ...]
    sides: dict[TableName, Side]
    rereads: dict[TableName, Reread]
    joining: frozenset[TableName]
    shapes: dict[int, Described]
    settled: frozenset[str]
    passed: int = 0
    routes: dict[TableName, dict[TableName, Route]] = field(default_factory=dict)

    def knows(self, name: TableName) -> bool:
        """Whether changes that come under this name can be applied."""
        return any(name == table.name for table in self.tables) or any(
            name == one.name for one in self.sides.values()
        )

    def stops(self, migration: str) -> Stops:
        """Where the stream of this migration must stop for changes of the schema."""
        return Stops(migration, self.settled, self.shapes)

    def covers(self, table: TableName, xid: int, commit_lsn: int) -> bool:
        """Whether it does not matter what the connector has lost of this transaction."""
        rereads = [self.rereads.get(name) for name in self.names_of(table)]
        return commit_lsn <= self.passed or all(
            one is not None and one.covers(xid, commit_lsn) for one in rereads
        )

    def relation_of(self, name: TableName) -> TableName:
        """The table of the stream behind a name of the migration."""
        return next((table for table, of in self.routes.items() if name in of), name)

    def names_of(self, table: TableName) -> tuple[TableName, ...]:
        """What a table of the stream is called in the migration; where it is split, each part."""
        return tuple(self.routes.get(table, {table: None}))


def unread(target: psycopg.Connection) -> list[TableLoad]:
    """Tables of the stream that are to be read again, and are not yet."""
    return _unread(_loads(target))


def _loads(target: psycopg.Connection) -> list[TableLoad]:
    with speaking("target", "reading the tables of the migration"):
        return load.read_tables(target)


def _unread(loads: Iterable[TableLoad]) -> list[TableLoad]:
    return [one for one in loads if one.joining is None and one.state is not LoadState.LOADED]


def _look_at(source_dsn: Callable[[], str]) -> None:
    """Refuse a login that the source refuses; a source that is away is not needed for now."""
    try:
        connect(
            login(source_dsn(), Role.VERIFY), application_name="cdc-migrator run", side="source"
        ).close()
    except Failed as error:
        _log.warning("source-away", reason=error.code)


def read(target: psycopg.Connection, source_dsn: Callable[[], str], migration: str) -> Registry:
    """The registry as it is now.

    Raises:
        Refused: CDCM-RUN-TOO-EARLY: a table of the stream is to be read again first;
            CDCM-SOURCE-TABLE-GONE.
        MigratorError: the target does not answer, or a database refuses the login.
    """
    loads = _loads(target)
    applied = {one.relation for one in loads if one.joining is None}
    left = _unread(loads)
    if left:
        raise Refused(
            "CDCM-RUN-TOO-EARLY",
            f"{', '.join(str(one.source) for one in left)} is to be read again, and is not yet",
            f"Type `cdc-migrator backfill --again '{left[0].source}'`, which ends what was begun.",
        )
    with speaking("target", "reading what its tables are"):
        noted = shapes.read(target)
        settled = shapes.settled(target)
        former = shapes.former(target)
    registered = {one.relation for one in loads}
    noted = {name: one for name, one in noted.items() if name in registered}
    unknown = registered - noted.keys()
    if not unknown:
        _look_at(source_dsn)
    else:
        # An earlier release did not write it down; or it is being added.
        with (
            connect(
                login(source_dsn(), Role.VERIFY), application_name="cdc-migrator run", side="source"
            ) as source,
            speaking("source", "reading its tables"),
        ):
            found_now = describe.by_name(source, sorted(unknown))
        with speaking("target", "writing down what its tables are"):
            shapes.note(target, [found_now[name] for name in found_now if name in applied], False)
        noted |= found_now
    sizes = {one.relation: one.estimated_bytes for one in loads}
    for name, one in noted.items():
        size = max(one.table.bytes, sizes[name])
        noted[name] = replace(one, table=replace(one.table, bytes=size))
    found = [one.table for _, one in sorted(noted.items())]
    tables = tuple(table for table in found if table.name in applied)
    missing = sorted(str(name) for name in applied - {table.name for table in tables})
    if missing:
        raise Refused(
            "CDCM-SOURCE-TABLE-GONE",
            f"the source has no longer: {', '.join(missing)}",
            "A table that moves must not be dropped or renamed. `cdc-migrator abort`, then "
            "`cdc-migrator migrate` starts over.",
        )
    beside = sides(found, migration)
    joining = registered - applied
    routes: dict[TableName, dict[TableName, Route]] = {}
    for load_ in sorted(loads, key=lambda one: one.source != one.relation):
        if load_.route is not None and load_.joining is None:
            routes.setdefault(load_.relation, {})[load_.source] = load_.route
    return Registry(
        tables=tables,
        sides={name: one for name, one in beside.items() if name in applied},
        rereads={
            one.source: Reread(
                Snapshot.parse(one.reread_snapshot),
                lsn_to_int(one.reread_until),
                former.get(one.relation, ()),
            )
            for one in loads
            if one.joining is None and one.reread_snapshot and one.reread_until
        },
        joining=frozenset(joining | {beside[name].name for name in joining if name in beside}),
        shapes={one.oid: one for one in noted.values()},
        settled=settled,
        routes=routes,
    )
