"""What writing to each table needs: its shape in the stream and the ways to its rows.

Made when the applier starts, and anew when it learns of more tables; nothing here changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import psycopg

from cdc_migrator.apply.beside import EventRows, SideRows, SideValues
from cdc_migrator.apply.shape import DecodesRows, Reread, Shape
from cdc_migrator.databases.postgres import catalog, names
from cdc_migrator.databases.postgres.forms import Builder, cast
from cdc_migrator.databases.postgres.side import Side
from cdc_migrator.databases.postgres.types import Beside, InEvent, Way, straight, way
from cdc_migrator.errors import Refused
from cdc_migrator.hook.calling import Caller
from cdc_migrator.model.mapping import Route
from cdc_migrator.model.tables import Column, Table, TableName
from cdc_migrator.stream.rows import KeyDecoder, RowDecoder

# By the tables of the stream that become others, what they become by the names in the migration.
Routes = Mapping[TableName, Mapping[TableName, Route]]


@dataclass(frozen=True, slots=True)
class TablePlan:
    """One table of the stream and its place on the target.

    Attributes:
        columns: those of the target that are written; in the shape's order where there is no route.
        builds: how the staged text of each of the shape's columns becomes a value.
        identity: what the target's indexes allow.
        straight: the target's columns have the very types that the event's texts are written for.
        replace: rows are always deleted and inserted again, because no index can decide
            ON CONFLICT or a column must not be updated (GENERATED ALWAYS AS IDENTITY), or what they
            keep is taken from the row that was there.
        caller: runs the route's hook; None: it has none.
    """

    shape: Shape
    target: TableName
    columns: tuple[Column, ...]
    builds: tuple[Builder, ...]
    identity: catalog.Identity
    replace: bool
    route: Route | None = None
    straight: bool = False
    caller: Caller | None = None

    @property
    def key(self) -> tuple[Column, ...]:
        """The target's key columns; in the order of the stream's keys where there is no route."""
        if self.route is None:
            return tuple(self.columns[place] for place in self.shape.key_places)
        named = {column.name: column for column in self.columns}
        return tuple(named[name] for name in self.route.key)

    @property
    def shared(self) -> bool:
        """Whether the target's table has more than this one's rows."""
        route = self.route
        if route is None:
            return False
        return route.belongs is not None or (route.back is not None and route.back.part)

    @property
    def divided(self) -> bool:
        """Whether the target's table is partitioned."""
        return self.route is not None and self.route.divided

    @property
    def filtered(self) -> bool:
        """Whether rows of the source may be missing on the target on purpose."""
        if self.route is None:
            return False
        back = self.route.back
        return self.route.where is not None if back is None else back.part or back.apart is not None


def plan_tables(
    conn: psycopg.Connection,
    tables: Iterable[Table],
    placeholder: str,
    sides: Mapping[TableName, Side] | None = None,
    rereads: Mapping[TableName, Reread] | None = None,
    routes: Routes | None = None,
) -> dict[TableName, TablePlan]:
    """The plan of every table of the stream.

    Args:
        conn: a session on the target, whose indexes are looked at.
        tables: as the source's catalog describes them (the stream's forms follow from it).
        placeholder: what the connector writes for values that an update left as they are.
        sides: of the tables whose events do not hold everything.
        rereads: tables that were loaded again under a later snapshot.
        routes: of the tables that become others, each under the name of its row.

    Raises:
        Refused: CDCM-TARGET-TABLE-MISSING. As `hook.calling.Caller`.
    """
    plans = {}
    there = catalog.read_targets(conn) if routes else {}
    for table in tables:
        becomes: Mapping[TableName, Route | None]
        becomes = (routes or {}).get(table.name) or {table.name: None}
        side = (sides or {}).get(table.name)
        for name, route in becomes.items():
            stream = _Stream(table, name, placeholder, side, (rereads or {}).get(name))
            if route is None:
                plans[name] = _plan_table(conn, stream)
            else:
                plans[name] = _plan_route(conn, stream, route, there.get(route.target))
    return plans


def _plan_table(conn: psycopg.Connection, stream: _Stream) -> TablePlan:
    table, shape = stream.table, stream.shape()
    types = _types(conn, table)
    identity = catalog.identity(conn, table.name, table.key)
    fixed = any(
        column.identity == "a"
        for place, column in enumerate(table.carried)
        if place not in shape.key_places
    )
    return TablePlan(
        shape=shape,
        target=table.name,
        columns=table.carried,
        builds=stream.builds(),
        identity=identity,
        replace=bool(shape.key_places) and (fixed or not identity.arbiter),
        straight=all(types[column.name] == column.type_text for column in table.carried),
    )


def _plan_route(
    conn: psycopg.Connection, stream: _Stream, route: Route, target: Table | None
) -> TablePlan:
    named = {column.name: column for column in target.columns} if target is not None else {}
    missing = [
        one.name for one in route.columns if one.name not in named or named[one.name].generated
    ]
    if target is None or missing:
        raise _missing(route.target, missing)
    identity = catalog.identity(conn, route.target, route.key)
    fixed = any(
        named[one.name].identity == "a" for one in route.columns if one.name not in route.key
    )
    back = route.back
    shape = stream.shape()
    if back is not None:
        shape = replace(shape, keeps=True, last=back.part)
    return TablePlan(
        shape=replace(shape, hooked=route.hook is not None),
        target=route.target,
        columns=tuple(named[one.name] for one in route.columns),
        builds=stream.builds(back.texts if back is not None else ()),
        identity=identity,
        replace=bool(route.key) and (fixed or not identity.arbiter or back is not None),
        route=route,
        caller=Caller(route) if route.hook is not None else None,
    )


@dataclass(frozen=True, slots=True)
class _Stream:
    """How a table comes in the stream; `name` is that of its row in the migration."""

    table: Table
    name: TableName
    placeholder: str
    side: Side | None
    reread: Reread | None

    def builds(self, texts: Collection[str] = ()) -> tuple[Builder, ...]:
        """How each column's text becomes a value; those of `texts` stay as they are."""
        # Whole rows come as texts of PostgreSQL's own.
        if self.side is not None and self.side.whole:
            return tuple(cast(names.type_name(c.type_text)) for c in self.table.carried)
        return tuple(
            cast(names.type_name("text")) if column.name in texts else way(column).build
            for column in self.table.carried
        )

    def shape(self) -> Shape:
        """What folding must know of it."""
        ways = [way(column) for column in self.table.carried]
        assert self.side is not None or not any(isinstance(how, Beside) for how in ways)
        shape = _shape(self.table, ways, self.placeholder, self.side, self.reread)
        return replace(shape, name=self.name, relation=self.table.name)


def _shape(
    table: Table, ways: Sequence[Way], placeholder: str, side: Side | None, reread: Reread | None
) -> Shape:
    columns = table.carried
    members = [(c.name, _in_string(how)) for c, how in zip(columns, ways, strict=True)]
    places = {column.name: place for place, column in enumerate(columns)}
    left_out = {column.name for column in side.left_out} if side is not None else set()
    kept = [name for name in places if name not in left_out]
    texts = [straight(column) for column in columns] if side is None else []
    in_event = RowDecoder(table.name, [members[places[n]] for n in kept], placeholder, texts)
    rows: DecodesRows = in_event
    if left_out:
        rows = EventRows(in_event, tuple(places[n] for n in kept), len(columns))
    key_places = () if side is not None and side.whole else tuple(places[n] for n in table.key)
    key = [members[place] for place in key_places]
    values = images = None
    if side is not None and side.whole:
        images = SideRows(side, placeholder)
    elif side is not None:
        where = tuple(places[column.name] for column in side.columns)
        values = SideValues(side, key, where, len(columns), placeholder)
    return Shape(
        name=table.name,
        columns=tuple(places),
        key_places=key_places,
        rows=rows,
        keys=KeyDecoder(table.name, key) if key else None,
        numeric_key=bool(key) and not key[0][1],
        values=values,
        images=images,
        reread=reread,
    )


def _in_string(how: Way) -> bool:
    return how.json_string if isinstance(how, InEvent) else True


_TARGET_COLUMNS = """
SELECT a.attname::text,
       CASE WHEN t.typtype <> 'd' THEN format_type(a.atttypid, a.atttypmod) END
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
"""


def _types(conn: psycopg.Connection, table: Table) -> dict[str, str | None]:
    """The types of the target's columns, None for domains: they may be of anything.

    Raises Refused where a column is not there to write to.
    """
    quoted = names.table(table.name).as_string(conn)
    there: dict[str, str | None] = dict(conn.execute(_TARGET_COLUMNS, (quoted,)).fetchall())
    missing = [column.name for column in table.carried if column.name not in there]
    if not there or missing:
        raise _missing(table.name, missing if there else [])
    return there


def _missing(target: TableName, columns: Sequence[str]) -> Refused:
    what = f"has no column {', '.join(columns)} to write to" if columns else "does not exist"
    return Refused(
        "CDCM-TARGET-TABLE-MISSING",
        f"the table {target} on the target {what}",
        "Bring the target's schema in line with the source's, then start again.",
    )
