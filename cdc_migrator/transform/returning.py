"""Work the routes of the way back out: the target's rows as rows of the source.

The same questions are asked as of the way there, with the two servers changed over: the types, what
an expression reads, whether it is immutable, whether sample rows give the same on both. What a
column went through on its way is kept with the route, so that a value that nobody has changed
returns as it was, whatever going there and back would have made of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import psycopg
from psycopg import sql

from cdc_migrator.control.load import Routes
from cdc_migrator.databases.postgres import mapped, names
from cdc_migrator.databases.postgres.coded import describe, speaking
from cdc_migrator.model.mapping import Kept, MappedColumn, Returning, Route, Turned, Wanted
from cdc_migrator.model.tables import Column, ReplicaIdentity, Table, TableName
from cdc_migrator.transform import probe
from cdc_migrator.transform.aside import toasting
from cdc_migrator.transform.bench import has_type
from cdc_migrator.transform.columns import Columns, Sides
from cdc_migrator.transform.entries import Entry
from cdc_migrator.transform.faults import Fault
from cdc_migrator.transform.inverse import Against, Inverse
from cdc_migrator.transform.keys import Way, unseen
from cdc_migrator.transform.shape import drafts, quoted
from cdc_migrator.transform.trial import trial

_DEFAULTS = """
SELECT a.attname::text, pg_get_expr(d.adbin, d.adrelid)
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
"""
_SEQUENCE = "SELECT pg_get_serial_sequence(%s, %s)"
# The two servers by what they are on the way there.
_NAMED = {"source": "target", "target": "source"}


def compile_back(
    source: psycopg.Connection,
    target: psycopg.Connection,
    inverses: Sequence[Inverse],
    *,
    rows: bool = True,
) -> tuple[Routes, list[Against]]:
    """The routes of the way back by the target's tables, and what stands against some.

    Both sessions come from `connect`, in autocommit mode and outside of a transaction; source and
    target are those of the way there.

    Args:
        rows: also look at rows; every one of the target that an expression is to turn back is read.

    Raises:
        MigratorError: a database failed.
    """
    work = _Work(source, target)
    for one in inverses:
        work.take(one)
    if rows and not work.against:
        work.prove()
    found: dict[TableName, list[Route]] = {}
    for way in work.ways:
        found.setdefault(way.route.source, []).append(way.route)
    return found, work.against


class _Work:
    """All routes of one migration."""

    def __init__(self, source: psycopg.Connection, target: psycopg.Connection) -> None:
        self._source = source
        self._target = target
        self._routes: dict[str, Route] = {}
        self.ways: list[Way] = []
        self.against: list[Against] = []

    def take(self, inverse: Inverse) -> None:
        """One route; its leader must have been taken before."""
        forth = inverse.forth
        leading = None
        if inverse.leader is not None:
            leading = self._routes.get(inverse.leader.forth.called)
        if forth.there is None or (inverse.leader is not None and leading is None):
            return  # it was told already
        seen = _seen(self._source, forth.there)
        texts = tuple(
            one.name
            for one, other in zip(seen.columns, forth.there.columns, strict=True)
            if one is not other
        )
        entry = _entry(inverse, seen, texts)
        columns = self._columns(inverse, entry, texts)
        if columns is None:
            return
        turning = _Turning(inverse, columns, leading)
        if foreign := turning.foreign():
            self.against += foreign
            return
        route = turning.route(self._left(inverse, columns), texts)
        if wrong := self._refused(route):
            self.against.append(
                Against(forth.called, wrong, "Say another expression under `back`.")
            )
            return
        way = Way(entry, route, forth.table, {})
        self._tell(inverse, self._unseen(way, forth.there))
        self._routes[forth.called] = route
        self.ways.append(way)

    def prove(self) -> None:
        """See that sample rows give the same on both servers, and that no row fails."""
        for way in self.ways:
            called = f"{way.route.target} -> {way.route.source}"
            computed = replace(way, route=replace(way.route, where=_apart(way.route)))
            faults = probe.unlike(self._target, self._source, [computed], _place, foreseen=False)
            self.against += [
                Against(called, one.message, "Let `back` give the same on both.") for one in faults
            ]
            if faults or not probe.asked(way.route):
                continue
            table = way.entry.table
            for failing in trial(self._target, table, way.there, computed.route).failing:
                self.against.append(
                    Against(
                        called,
                        f"{failing.rows} rows of {table.name} cannot be brought back: "
                        f"{failing.column} fails with SQLSTATE {failing.sqlstate}",
                        "Say under `back` what they become, or correct them.",
                    )
                )

    def _columns(
        self, inverse: Inverse, entry: Entry, texts: Sequence[str]
    ) -> tuple[MappedColumn, ...] | None:
        """Those of the source that are written; None where something is wrong with one."""
        place = _place
        found, faults = drafts(entry, place)
        if not faults:
            with ExitStack() as stack:
                sides = Sides(self._target, self._source, entry.table, stack, False, _NAMED)
                work = Columns(entry, inverse.forth.table, sides, place)
                columns = [one for draft in found if (one := work.column(draft)) is not None]
                faults = work.faults
        self._tell(inverse, faults)
        if faults:
            return None
        return tuple(
            # What is another type there is a text on its way.
            replace(one, cast=True) if not set(one.uses).isdisjoint(texts) else one
            for one in columns
        )

    def _unseen(self, way: Way, there: Table) -> list[Fault]:
        """Values that an update would not tell; what a row's key is comes with each change."""
        route, back = way.route, way.route.back
        found = toasting(self._target, [there.name]).get(there.name, set())
        aside = found.difference(there.key)
        used = [one.name for one in there.columns if one.name in aside & route.reads]
        faults = unseen(
            replace(way, route=replace(route, where=None, where_uses=())), aside, _place
        )
        moves = back is not None and (back.part or back.apart is not None)
        if moves and used and there.replica_identity is not ReplicaIdentity.FULL:
            why = (
                f"an update of {there.name} that brings a row to another of {route.target} and "
                f"leaves {', '.join(used)} alone, does not say what it is"
            )
            statement = f"ALTER TABLE {_text(names.table(there.name))} REPLICA IDENTITY FULL;"
            faults.append(Fault("CDCM-MAPPING-IDENTITY", "key", why, statement))
        return faults

    def _tell(self, inverse: Inverse, faults: Sequence[Fault]) -> None:
        self.against += [Against(inverse.forth.called, str(one), one.remedy) for one in faults]

    def _left(self, inverse: Inverse, columns: Sequence[MappedColumn]) -> tuple[Kept, ...]:
        """What of the source's row is left as it is, with its defaults."""
        forth = inverse.forth
        written = {one.name for one in columns}
        name = names.table(forth.table.name).as_string(self._source)
        with speaking("source", f"reading the defaults of {forth.table.name}"):
            defaults: dict[str, str | None] = dict(
                self._source.execute(_DEFAULTS, (name,)).fetchall()
            )
            return tuple(
                Kept(one.name, None, by_key=True)
                if one.name in inverse.beside
                else Kept(one.name, defaults.get(one.name) or self._next(name, one))
                for one in forth.table.carried
                if one.name not in written
            )

    def _next(self, table: str, column: Column) -> str | None:
        if not column.identity:
            return None
        row = self._source.execute(_SEQUENCE, (table, column.name)).fetchone()
        assert row is not None
        return f"pg_catalog.nextval({sql.Literal(row[0]).as_string(self._source)}::regclass)"

    def _refused(self, route: Route) -> str | None:
        """What either server says against comparing the route's rows, or finishing them."""
        compared = sql.SQL("SELECT FROM {} AS t LIMIT 0")
        finished = sql.SQL("SELECT {} FROM ONLY {} LIMIT 0").format(
            _finishing(route), names.table(route.target)
        )
        for side, conn, query in (
            ("target", self._target, compared.format(mapped.rows_of_source(route))),
            ("source", self._source, compared.format(mapped.rows_of_target(route))),
            ("source", self._source, finished),
        ):
            with speaking(side, f"asking about rows of {route.target} that come back"):
                try:
                    with conn.transaction():
                        conn.execute(query)
                except psycopg.errors.Error as exc:
                    if (exc.sqlstate or "")[:2] not in ("42", "22", "0A"):
                        raise
                    return f"the {side} says: {describe(exc)}"
        return None


class _Turning:
    """One inverse whose columns are known."""

    def __init__(
        self, inverse: Inverse, columns: tuple[MappedColumn, ...], leading: Route | None
    ) -> None:
        self._inverse = inverse
        self._forth = inverse.forth
        self._columns = columns
        self._named = {one.name: one for one in columns}
        self._leading = leading

    def route(self, kept: tuple[Kept, ...], texts: tuple[str, ...]) -> Route:
        forth, key = self._forth, self._forth.table.key
        part = self._leading is not None
        turned = tuple(
            self._turned(one) for one in self._columns if one.name not in key and self._moved(one)
        )
        apart = " AND ".join([*map(self._same, self._inverse.apart), *self._inverse.within]) or None
        here, there = [apart] if apart else [], []
        if forth.route.where is not None:
            here.append(self._passes())
            there.append(f"({forth.route.where}\n)")
        if part:
            own = [one for one in self._columns if one.name not in key]
            here.append(_some(_text(mapped.stored(one)) for one in own))
            there.append(_some(quoted(one.name) for one in own))
        back = Returning(part, apart, kept, turned, texts)
        plain = not (part or apart or kept or turned or texts or here)
        used = {name for one in self._columns for name in one.uses} | set(self._inverse.telling)
        return Route(
            forth.route.target,
            forth.table.name,
            self._columns,
            key,
            " AND ".join(here) or None,
            tuple(sorted(used)) if here else (),
            " AND ".join(there) or None,
            None if plain else back,
        )

    def foreign(self) -> list[Against]:
        """What cannot be known: whether somebody changed what only the target has, and what another
        table has of a row."""
        found = []
        for one in self._columns:
            if own := [name for name in one.uses if self._forth_of(name) is None]:
                why = f"back.{one.name} reads {', '.join(own)}, to which nothing of the source goes"
                say = "Read columns that the mapping fills, or say null: it stays as it is."
                found.append(Against(self._forth.called, why, say))
        if self._leading is not None:
            for name in self._forth.route.where_uses:
                said = None if name in self._named else self._leading.column(name)
                if said is not None and said.uses:
                    why = (
                        f"the filter reads {name}, and back.{name} of {self._leading.source} reads "
                        f"{', '.join(said.uses)}, which {self._forth.route.target} does not have"
                    )
                    say = "Say a constant that holds for all rows that come back."
                    found.append(Against(self._forth.called, why, say))
        return found

    def _moved(self, column: MappedColumn) -> bool:
        """Whether a value may come back as another one than it went as."""
        return (
            column.cast
            or not column.uses
            or any(
                self._went(name).cast or self._went(name).of != column.name for name in column.uses
            )
        )

    def _turned(self, column: MappedColumn) -> Turned:
        went = [(name, _text(mapped.stored(self._went(name)))) for name in column.uses]
        made = sql.SQL("ROW({})::text").format(_listed(text for _, text in went))
        if (where := self._forth.route.where) is not None:
            # A row that the filter had left out is not what the target had.
            made = sql.SQL("CASE WHEN {} THEN {} END").format(mapped.expression(where), made)
        again = _over(mapped.stored(column), (f"{text} AS {quoted(name)}" for name, text in went))
        return Turned(column.name, column.uses, _text(made), _text(again))

    def _passes(self) -> str:
        """The filter of the way there over the row that comes back."""
        forth = self._forth.route
        values = []
        for name in forth.where_uses:
            column = self._named.get(name)
            if column is None and self._leading is not None:
                column = self._leading.column(name)
            assert column is not None
            values.append(f"{_text(mapped.stored(column))} AS {quoted(name)}")
        assert forth.where is not None
        return _text(_over(mapped.expression(forth.where), values))

    def _same(self, name: str) -> str:
        """That a column of the target's key has what all rows of this route have."""
        column = self._went(name)
        value = _text(mapped.stored(column))
        if column.base_type.startswith("pg_catalog."):
            return f"{quoted(name)} = {value}"
        return f"{quoted(name)}::pg_catalog.text = {value}::pg_catalog.text"

    def _went(self, name: str) -> MappedColumn:
        return self._forth.route.column(name)

    def _forth_of(self, name: str) -> MappedColumn | None:
        return next((one for one in self._forth.route.made if one.name == name), None)


def _seen(source: psycopg.Connection, there: Table) -> Table:
    """The target's table as the source can read it: labels of an enumeration that it lacks are
    texts."""
    columns = []
    for one in there.columns:
        with speaking("source", "reading its types"):
            lacks = one.category == "e" and not has_type(source, one.type_text)
        columns.append(
            replace(one, type_text="text", base_type="pg_catalog.text", category="b")
            if lacks
            else one
        )
    return replace(there, columns=tuple(columns))


def _entry(inverse: Inverse, seen: Table, texts: Sequence[str]) -> Entry:
    """What an entry would say that led from the target to the source."""
    table = inverse.forth.table
    plain = {own: name for own, name in inverse.carried.items() if name not in texts}
    as_text = {own: quoted(name) for own, name in inverse.carried.items() if name in texts}
    wanted = Wanted(
        str(seen.name),
        str(table.name),
        keep=tuple(plain.values()),
        rename={name: own for own, name in plain.items()},
        cast={name: table.column(name).type_text for name in inverse.written},
        set={**as_text, **inverse.given},
    )
    return Entry(seen, wanted, 0, table.name)


def _place(_: int, field: str) -> str:
    """Where a fault stands: what is said of a column of the source, or the column."""
    of, _dot, name = field.partition(".")
    return f"back.{name}" if of == "set" else name or "back"


def _finishing(route: Route) -> sql.Composable:
    """What applying asks of the rows that are there."""
    if route.back is None:
        return sql.SQL("")
    texts = [one.turned for one in route.back.turned]
    texts += [one.default for one in route.back.kept if one.default is not None]
    return _listed(f"({one}\n)" for one in texts)


def _apart(route: Route) -> str | None:
    return route.back.apart if route.back is not None else None


def _listed(texts: Iterable[str]) -> sql.Composable:
    return sql.SQL(", ").join(sql.SQL(one) for one in texts)


def _over(value: sql.Composable, row: Iterable[str]) -> sql.Composable:
    """A value over a row of these columns."""
    return sql.SQL("(SELECT {} FROM (SELECT {}) AS r)").format(value, _listed(row))


def _some(values: Iterable[str]) -> str:
    return f"pg_catalog.num_nonnulls({', '.join(values)}) > 0"


def _text(value: sql.Composable) -> str:
    return value.as_string(None)
