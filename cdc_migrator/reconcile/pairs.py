"""A table on both sides: which of its columns are compared, and what stands against that.

A column is compared where both sides store it, or both compute it by the same expression. What
only one side computes is left out: the stream does not carry it.

Where the migration makes other rows of a table's, what is compared on the source is a table that
exists nowhere: its rows as the target holds them, by the target's names. On the target it is what
belongs to it of the table that they are written to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto

import psycopg
from psycopg import sql

from cdc_migrator.control.load import TableLoad
from cdc_migrator.databases.postgres import mapped, names
from cdc_migrator.databases.postgres.catalog import read_targets
from cdc_migrator.model.mapping import MappedColumn, Route
from cdc_migrator.model.tables import Column, Table, TableName
from cdc_migrator.reconcile.at_once import at_once


@dataclass(frozen=True, slots=True)
class Compared:
    """One column as both sides declare it."""

    source: Column
    target: Column

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def never_null(self) -> bool:
        return self.source.not_null and self.target.not_null

    @property
    def same_type(self) -> bool:
        return self.source.base_type == self.target.base_type

    def on(self, target: bool) -> Column:
        return self.target if target else self.source


@dataclass(frozen=True, slots=True)
class Pair:
    """A table of the source and its copy.

    Attributes:
        source: under the name that the migration has for it; with a route, as it would be if it
            held the target's rows.
        columns: what is compared, in the source's order.
        left_out: generated columns that are not compared.
        route: how its rows become the target's; None: they are the same.
        indexed: on both sides an index may lead with the key's columns, in the key's order.
        widened: those of the key's columns that are wider integers on the target, each with the
            name under which `rows` have the source's own: only that is in its index.
    """

    source: Table
    target: Table
    columns: tuple[Compared, ...]
    left_out: tuple[str, ...]
    route: Route | None = None
    indexed: bool = True
    widened: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[Compared, ...]:
        """The key's columns; empty for a keyless table."""
        known = {column.name: column for column in self.columns}
        return tuple(known[name] for name in self.source.key)

    def on(self, target: bool) -> Table:
        return self.target if target else self.source

    @property
    def shared(self) -> bool:
        """Whether other tables are written to the same one of the target."""
        return self.route is not None and self.route.belongs is not None

    @property
    def of_nobody(self) -> bool:
        """Whether it is what no table claims of a shared one: the source has none of its rows, and
        is not asked."""
        return self.route is not None and self.route.claims_rest

    @property
    def divided(self) -> bool:
        """Whether its rows are in the partitions of a table of the target."""
        return self.route is not None and self.route.divided

    @property
    def returns(self) -> bool:
        """Whether its rows come back to a table that has more than they carry."""
        return self.route is not None and self.route.back is not None

    @property
    def part(self) -> bool:
        """Whether its rows are parts of another's, which has to be there first."""
        return self.route is not None and self.route.back is not None and self.route.back.part

    @property
    def unfiltered(self) -> Pair:
        """With all of the rows that are written, where not all are compared."""
        if self.route is None or self.route.back is None:
            return self
        return replace(self, route=replace(self.route, where=self.route.back.apart))

    def relation(self, target: bool) -> TableName:
        """The table whose file is read, and that is locked meanwhile."""
        if self.route is None:
            return self.on(target).name
        return self.route.target if target else self.route.source

    def attribute(self, column: Compared, target: bool) -> str | None:
        """The column of `relation` that a column is, perhaps in another type; None: of none."""
        if self.route is None or target:
            return column.on(target).name
        return self.route.column(column.name).of

    def place(self, column: Compared, target: bool) -> sql.Identifier:
        """A key column as an index has it: for conditions on `rows`, not for values."""
        name = column.on(target).name
        return sql.Identifier(name if target else self.widened.get(name, name))

    @property
    def hooked(self) -> bool:
        """Whether some columns are given by a hook: `hooked.read` then reads the source's rows."""
        return self.route is not None and self.route.hook is not None

    def plain(self, target: bool, alias: str | None = None) -> sql.Composable:
        """As `rows`, on the source without what a hook gives, and with what it reads."""
        if self.hooked and not target:
            return _called(self._of_source(), alias or "t")
        return self.rows(target, alias)

    def rows(self, target: bool, alias: str | None = None) -> sql.Composable:
        """A side's rows, with ``ctid``, for FROM; their columns are called as in `columns`."""
        if self.route is None:
            rows = sql.SQL("ONLY {}").format(names.table(self.on(target).name))
            return rows if alias is None else _called(rows, alias)
        made = mapped.rows_of_target(self.route) if target else self._of_source(given=self.hooked)
        return _called(made, alias or "t")

    def lying(self, target: bool) -> sql.Composable:
        """Where a row ``t`` of `rows` lies, as a text."""
        if target and self.divided:
            return sql.SQL("concat({}, t.ctid)").format(sql.Identifier("t", mapped.PARTITION))
        return sql.SQL("t.ctid::text")

    def sampled(self, percent: float) -> sql.Composable:
        """As `plain` of the source, of so much of its pages."""
        sampled = sql.SQL("TABLESAMPLE SYSTEM ({})").format(sql.Literal(percent))
        if self.route is None:
            return sql.SQL("ONLY {} {}").format(names.table(self.source.name), sampled)
        return _called(self._of_source(sampled), "t")

    def _of_source(
        self, sampled: sql.Composable | None = None, given: bool = False
    ) -> sql.Composable:
        assert self.route is not None
        own = [(called, self.route.column(name).of) for name, called in self.widened.items()]
        beside = [(called, name) for called, name in own if name is not None]
        return mapped.rows_of_source(self.route, sampled, beside, given)

    def belonging(self, condition: sql.Composable) -> sql.Composable:
        """A condition on the target's table, of those of its rows that are this pair's."""
        if self.route is None or self.route.belongs is None:
            return condition
        return sql.SQL("{} AND {}").format(condition, mapped.expression(self.route.belongs))


def _called(rows: sql.Composable, alias: str) -> sql.Composable:
    return sql.SQL("{} AS {}").format(rows, sql.Identifier(alias))


@dataclass(frozen=True, slots=True)
class Unpaired:
    """A table that cannot be compared, and why."""

    table: TableName
    reason: str


_GENERATED = """
SELECT n.nspname, c.relname, a.attname, pg_get_expr(d.adbin, d.adrelid)
FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE a.attgenerated <> '' AND NOT a.attisdropped
"""

Expressions = Mapping[tuple[TableName, str], str]
Routes = Mapping[TableName, Route]
NO_ROUTES: Routes = {}


def read_pairs(
    source: psycopg.Connection,
    target: psycopg.Connection,
    tables: Mapping[TableName, TableName],
    routes: Routes = NO_ROUTES,
) -> list[Pair | Unpaired]:
    """Look both sides' catalogs up.

    Args:
        tables: the names that the migration has for its tables, with the target's.
        routes: of those whose rows become others.
    """
    (here, computed_here), (there, computed_there) = at_once(
        lambda: _read(source), lambda: _read(target)
    )
    found: list[Pair | Unpaired] = []
    for name, other in tables.items():
        route = routes.get(name)
        own = route.source if route else name
        if own not in here or other not in there:
            side = "target" if own in here else "source"
            found.append(Unpaired(name, f"the {side} has no such table"))
        elif route and route.claims_rest:
            found.append(_of_nobody(name, route, there[other]))
        elif route:
            found.append(routed(name, route, here[own], there[other]))
        else:
            found.append(pair(here[own], there[other], computed_here, computed_there))
    return found


def pairs_of(
    source: psycopg.Connection, target: psycopg.Connection, tables: Iterable[TableLoad]
) -> list[Pair | Unpaired]:
    """As `read_pairs`, of tables of the migration."""
    every = list(tables)
    routes = {one.source: one.route for one in every if one.route is not None}
    return read_pairs(source, target, {one.source: one.target for one in every}, routes)


def _read(conn: psycopg.Connection) -> tuple[dict[TableName, Table], Expressions]:
    return read_targets(conn), _expressions(conn)


def _expressions(conn: psycopg.Connection) -> Expressions:
    return {
        (TableName(schema, table), column): expression
        for schema, table, column, expression in conn.execute(_GENERATED)
    }


def pair(
    source: Table, target: Table, computed_here: Expressions, computed_there: Expressions
) -> Pair | Unpaired:
    """Match the columns by name."""
    there = {column.name: column for column in target.columns}
    compared: list[Compared] = []
    left_out: list[str] = []
    missing: list[str] = []
    for column in source.columns:
        other = there.get(column.name)
        if column.generated and (
            other is None
            or not other.generated
            or computed_here.get((source.name, column.name))
            != computed_there.get((target.name, column.name))
        ):
            left_out.append(column.name)
        elif other is None or other.generated != column.generated:
            missing.append(column.name)
        else:
            compared.append(Compared(column, other))
    if missing:
        return Unpaired(source.name, f"the target does not store {', '.join(missing)}")
    if not compared:
        return Unpaired(source.name, "it has no column that could be compared")
    return Pair(source, target, tuple(compared), tuple(left_out))


def routed(name: TableName, route: Route, source: Table, target: Table) -> Pair | Unpaired:
    """What a route makes of a table of the source, and the target's table.

    Args:
        name: by which the migration knows it. source: the table that the route reads.
    """
    have = {column.name: column for column in source.columns}
    there = {column.name: column for column in target.columns if not column.generated}
    if gone := sorted(route.reads - have.keys()):
        return Unpaired(name, f"the source does not store {', '.join(gone)}, which is mapped")
    if missing := [column.name for column in route.columns if column.name not in there]:
        return Unpaired(name, f"the target does not store {', '.join(missing)}")
    if other := [c.name for c in route.columns if c.base_type != there[c.name].base_type]:
        return Unpaired(name, f"the target has {', '.join(other)} in another type than is mapped")
    compared = tuple(
        Compared(mapped.shown(column, have, there[column.name]), there[column.name])
        for column in route.columns
    )
    columns = tuple(one.source for one in compared)
    # What all of its rows have in common would be in the way of the source's index.
    made = replace(source, name=name, columns=columns, key=route.telling)
    forms = [_form(route.column(name), have) for name in route.telling]
    wide = [name for name, form in zip(route.telling, forms, strict=True) if form is _Form.WIDER]
    widened = {name: f"cdcm_k{place}" for place, name in enumerate(wide)}
    indexed = _Form.OTHER not in forms and _indexed(route, source, target)
    return Pair(made, target, compared, (), route, indexed, widened)


def _of_nobody(name: TableName, route: Route, target: Table) -> Pair:
    """Its rows are told apart by the target's own key."""
    columns = tuple(Compared(column, column) for column in target.columns)
    made = replace(target, name=name, estimated_rows=0, bytes=0)
    return Pair(made, target, columns, (), route, indexed=False)


class _Form(Enum):
    """What a mapped column is beside the source's column: all but OTHER are in its order."""

    SAME = auto()
    WIDER = auto()
    OTHER = auto()


_INTEGERS = ("pg_catalog.int2", "pg_catalog.int4", "pg_catalog.int8")
_TEXTS = {"text": "pg_catalog.text", "character varying": "pg_catalog.varchar"}


def _form(column: MappedColumn, have: Mapping[str, Column]) -> _Form:
    own = have.get(column.of) if column.of is not None else None
    # A column may be cast on its way already, to another type than the target's.
    if own is None or column.expression not in (own.name, sql.Identifier(own.name).as_string()):
        return _Form.OTHER
    # An index of one of these is one of the other.
    if not column.cast or (
        column.type_text in _TEXTS and own.base_type in _TEXTS.values() and "." not in own.type_text
    ):
        return _Form.SAME
    if column.base_type in _INTEGERS and own.base_type in _INTEGERS:
        wider = _INTEGERS.index(column.base_type) >= _INTEGERS.index(own.base_type)
        return _Form.WIDER if wider and "." not in column.type_text else _Form.OTHER
    return _Form.OTHER


def _indexed(route: Route, source: Table, target: Table) -> bool:
    """Whether the key's columns are, in its order, what either side's own key begins with."""
    key = route.telling
    # Which of the target's rows belong to it is said in each statement.
    said = set(route.key) - set(key) if route.belongs is not None else set[str]()
    there = [name for name in target.key if name not in said]
    here = [route.column(name).of for name in key]
    # Those of a type that is not PostgreSQL's own are said in a way that no index serves.
    served = all(route.column(name).base_type.startswith("pg_catalog.") for name in said)
    return served and here == [*source.key] and there[: len(key)] == [*key]


def only(pairs: Sequence[Pair | Unpaired]) -> dict[TableName, Pair]:
    """Those that can be compared, by the names that the migration has for them."""
    return {one.source.name: one for one in pairs if isinstance(one, Pair)}
