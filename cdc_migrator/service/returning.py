"""What comes back of tables that change their shape: worked out once, when the way back is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import psycopg

from cdc_migrator.control.load import NO_ROUTES, Routes, TableLoad
from cdc_migrator.databases.postgres.catalog import read_tables, read_targets
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.errors import Refused
from cdc_migrator.model.destinations import destination, entries
from cdc_migrator.model.mapping import Route, Wanted, called
from cdc_migrator.model.tables import Table, TableName
from cdc_migrator.transform.aside import demanding
from cdc_migrator.transform.inverse import Against, Forth, Inverted, invert
from cdc_migrator.transform.returning import compile_back

# By the names that the way back has for them: the source's table, and how rows come to it.
Ways = Mapping[TableName, tuple[TableName, Route | None]]


@dataclass(frozen=True, slots=True)
class Comes:
    """The tables of the target whose rows come back, and how.

    Attributes:
        tables: those that are captured.
        routes: of those whose rows become others.
        source: the source's tables that they come to.
        left: tables of the source with those of the target whose rows do not come back, knowingly.
    """

    tables: tuple[TableName, ...]
    routes: Routes = field(default_factory=lambda: NO_ROUTES)
    source: tuple[TableName, ...] = ()
    left: tuple[tuple[TableName, TableName], ...] = ()

    @property
    def ways(self) -> Ways:
        """As `load.register` writes them down."""
        found: dict[TableName, tuple[TableName, Route | None]] = {}
        for table in self.tables:
            routes = self.routes.get(table, ())
            for route in routes:
                found[called(route, route is routes[0])] = (route.target, route)
            if not routes:
                found[table] = (table, None)
        return found

    def told(self, notify: Callable[[str], None]) -> None:
        """Say what does not come back."""
        for here, there in self.left:
            notify(f"rows of {there} do not come back to {here}, as `back: none` says")


def comes(
    source: psycopg.Connection,
    target: psycopg.Connection,
    loads: Sequence[TableLoad],
    wanted: Sequence[Wanted],
) -> Comes:
    """What comes back of the tables of a migration.

    Both sessions come from `connect`, in autocommit mode and outside of a transaction.

    Raises:
        Refused: CDCM-MAPPING-NO-WAY-BACK: with every reason, and what can be said against it.
        MigratorError: a database failed.
    """
    plain = [one.target for one in loads if one.route is None]
    ways = [one.route for one in loads if one.route is not None]
    if not ways:
        return Comes(tuple(sorted(plain)), source=tuple(plain))
    found = _inverted(source, target, ways, wanted)
    against = list(found.against)
    routes, wrong = compile_back(source, target, found.inverses)
    against += wrong
    tables = sorted({*plain, *routes})
    if not against and not tables:
        against.append(Against("the migration", "no table comes back at all", ""))
    if against:
        raise no_way_back(against)
    return Comes(
        tuple(tables),
        routes,
        tuple(dict.fromkeys((*plain, *(one.target for of in routes.values() for one in of)))),
        tuple((one.route.source, one.route.target) for one in found.stays),
    )


def reasons(
    source: psycopg.Connection,
    target: psycopg.Connection,
    routes: Routes,
    wanted: Sequence[Wanted],
) -> tuple[list[Against], list[Forth]]:
    """What the mapping says against a way back, and what is left out of it knowingly; no row is
    looked at, and tables that the target lacks are taken to be as they will be made."""
    ways = [one for of in routes.values() for one in of]
    found = _inverted(source, target, ways, wanted)
    against = list(found.against)
    if not against and all(one.forth.there is not None for one in found.inverses):
        against += compile_back(source, target, found.inverses, rows=False)[1]
    return against, found.stays


def no_way_back(against: Sequence[Against]) -> Refused:
    """CDCM-MAPPING-NO-WAY-BACK: these rows of the target cannot become the source's."""
    lines = [str(one) for one in against]
    tables = len({one.called for one in against})
    told = lines[0] if len(lines) == 1 else "\n  ".join([f"{tables} tables cannot", *lines])
    says = dict.fromkeys(one.say for one in against if one.say)
    return Refused(
        "CDCM-MAPPING-NO-WAY-BACK",
        f"there can be no way back as the mapping stands: {told}",
        f"{' '.join(says)} Or say `back: none` in the entry of a table whose rows need not come "
        "back; or, in cutover.without_way_back, why none is needed at all.".strip(),
    )


def _inverted(
    source: psycopg.Connection,
    target: psycopg.Connection,
    routes: Sequence[Route],
    wanted: Sequence[Wanted],
) -> Inverted:
    with speaking("source", "reading its tables"):
        here = {one.name: one for one in read_tables(source)}
        demanded = demanding(source, [one.source for one in routes])
    with speaking("target", "reading its tables"):
        there = read_targets(target)
    forths = [
        Forth(
            one,
            here[one.source],
            there.get(one.target),
            _said(wanted, one, here[one.source]),
            frozenset(demanded.get(one.source, ())),
        )
        for one in routes
        if one.source in here
    ]
    return invert(forths)


def _said(wanted: Sequence[Wanted], route: Route, table: Table) -> Wanted:
    """The entry that a route was made of."""
    for one in entries(wanted, table.name, table.root):
        if destination(one, table.name, table.root) == route.target:
            return one
    return Wanted(str(route.source), str(route.target))
