"""Tables whose rows become others, as rules look at them. Pure.

A rule names the table of the source and the columns of the target. On the source it is asked of the
rows that the target should have, on the target of those that belong to the table. What a hook gives
is not to be had on the source by SQL: no rule can name it. Foreign keys are followed to where their
columns went; one that cannot be is told, not left out. A partitioned table that is mapped as a
whole has the rows of all of its partitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from psycopg import sql

from cdc_migrator.databases.postgres import mapped, names
from cdc_migrator.databases.postgres.relations import ForeignKey, Relation
from cdc_migrator.model.mapping import Route, called
from cdc_migrator.model.tables import TableName
from cdc_migrator.validate.known import Catalogs

Routes = Mapping[TableName, Route]


def through(known: Catalogs, routes: Routes) -> Catalogs:
    """Both sides' tables, with what the migration makes of some."""
    if not routes:
        return known
    parts = _parts(known, routes)
    wholes = {name: _whole(several, known) for name, several in parts.items()}
    moved = {**known.moved, **{str(name): one.target for name, one in wholes.items()}}
    known, routes = replace(known, moved=moved), {**routes, **wholes}
    paths = _Paths(known, routes)
    source, target = dict(known.source), dict(known.target)
    for side in (source, target):
        for of, one in side.items():
            side[of] = replace(one, foreign_keys=())
    own: dict[str, Relation] = {}
    for name, route in routes.items():
        here, there = known.source.get(str(route.source)), known.target.get(str(route.target))
        if here is None or there is None:
            source.pop(str(name), None)
            continue
        made = _together(parts[name]) if name in parts else mapped.rows_of_source(route)
        source[str(name)] = _on_source(name, route, here, there, made)
        own[str(name)] = _on_target(route, there)
    lost: dict[str, tuple[str, ...]] = {}
    for of in known.moved:
        followed, missed = paths.of(of)
        if of in source:
            source[of] = replace(source[of], foreign_keys=tuple(followed))
        if missed:
            lost[of] = tuple(missed)
    return replace(known, source=source, target=target, own=own, lost=lost)


def _parts(known: Catalogs, routes: Routes) -> dict[TableName, list[Route]]:
    """The routes of partitions, by what the table is called that they are part of."""
    found: dict[TableName, list[Route]] = {}
    for name, route in routes.items():
        here = known.source.get(str(route.source))
        if route.bound is None or here is None or here.root is None:
            continue
        of = called(replace(route, source=here.root), first=name == route.source)
        found.setdefault(of, []).append(route)
    return found


def _whole(parts: Sequence[Route], known: Catalogs) -> Route:
    """The route that a partitioned table would have."""
    root = known.source[str(parts[0].source)].root
    assert root is not None
    belongs = " OR ".join(f"({one.belongs})" for one in parts)
    return replace(parts[0], source=root, belongs=belongs, bound=None)


def _together(parts: Sequence[Route]) -> sql.Composable:
    """The rows of all partitions: a row source without a name."""
    columns = names.columns(one.name for one in parts[0].made)
    return sql.SQL("({})").format(
        sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT ctid, {} FROM {} AS cdcm_part").format(
                columns, mapped.rows_of_source(one)
            )
            for one in parts
        )
    )


def _on_source(
    name: TableName, route: Route, here: Relation, there: Relation, made: sql.Composable
) -> Relation:
    have = {column.name: column for column in here.columns}
    columns = [
        mapped.shown(column, have, other)
        for column in route.made
        if (other := there.column(column.name)) is not None
    ]
    return Relation(
        name,
        tuple(columns),
        route.telling,
        rows=here.rows,
        made=made,
    )


def _on_target(route: Route, there: Relation) -> Relation:
    rows = None if route.belongs is None else mapped.rows_of_target(route)
    return replace(there, key=route.telling, foreign_keys=(), made=rows)


@dataclass(frozen=True, slots=True)
class _Paths:
    """Where foreign keys lead, in the names that rules use."""

    known: Catalogs
    routes: Routes

    def of(self, table: str) -> tuple[list[ForeignKey], list[str]]:
        """Those that either side declares of a table, each once, and what cannot be followed."""
        own = next((route for name, route in self.routes.items() if str(name) == table), None)
        followed: dict[tuple[object, ...], ForeignKey] = {}
        missed: list[str] = []
        for target in (False, True):
            for key in self._declared(table, own, target):
                ways = list(self._ways(key, own, target))
                if not ways and not self._covered(key, followed.values(), target):
                    missed.append(f"{key.name} to {key.table}")
                for one in ways[:1]:
                    followed.setdefault((one.columns, one.table, one.referenced), one)
        return list(followed.values()), missed

    def _declared(self, table: str, own: Route | None, target: bool) -> Sequence[ForeignKey]:
        if own is not None:
            table = str(own.target if target else own.source)
        elif target:
            table = str(self.known.moved.get(table, table))
        found = (self.known.target if target else self.known.source).get(table)
        return found.foreign_keys if found is not None else ()

    def _ways(self, key: ForeignKey, own: Route | None, target: bool) -> Iterator[ForeignKey]:
        """The key in the target's columns, once for each table that it may lead to."""
        columns = _renamed(own, key.columns, target)
        others = list(self._called(key.table, target))
        if columns is None or (target and len(others) > 1):
            return
        for name, route in others:
            referenced = _renamed(route, key.referenced, target)
            if referenced is not None:
                yield ForeignKey(key.name, columns, name, referenced)

    def _called(self, table: TableName, target: bool) -> Iterator[tuple[TableName, Route | None]]:
        """What the migration calls a side's table; several where it is split or shared."""
        every = [
            (name, route)
            for name, route in self.routes.items()
            if (route.target if target else route.source) == table
            # There the partitions are as one.
            and not (target and route.bound is not None)
        ]
        yield from every
        if not every and (not target or str(table) in self.known.source):
            yield table, None

    def _covered(self, key: ForeignKey, followed: Iterable[ForeignKey], target: bool) -> bool:
        """Whether the source's keys say already to which of several tables in one it leads."""
        if not target:
            return False
        several = {name for name, _ in self._called(key.table, True)}
        return len(several) > 1 and any(one.table in several for one in followed)


def _renamed(route: Route | None, columns: Sequence[str], target: bool) -> tuple[str, ...] | None:
    """A side's columns by the target's names; None where one of them does not travel."""
    if route is None:
        return tuple(columns)
    there = {one.name if target else one.of: one.name for one in reversed(route.columns)}
    found = [there.get(column) for column in columns]
    return None if None in found else tuple(one for one in found if one is not None)
