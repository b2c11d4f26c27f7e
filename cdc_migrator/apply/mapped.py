"""The statements of a table with a route: the source's staged row, as the target is to have it.

Between the staged texts and the target stands a row source ``s`` of the same form as the staged
rows have, but with values: ``b0…`` the key on the target that the base key becomes, ``c0…`` the
target's columns, ``f`` whether the target has such a row at all. Expressions see the source's
columns, of the source's types, and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property

from psycopg import sql

from cdc_migrator.apply.plan import TablePlan
from cdc_migrator.apply.stage import COMPLETE, unchanged_places
from cdc_migrator.apply.statements import Statements
from cdc_migrator.databases.postgres import mapped, names
from cdc_migrator.errors import StreamHalted
from cdc_migrator.model import mapping
from cdc_migrator.model.mapping import MappedColumn, Route


class MappedStatements(Statements):
    """All statements of a table whose plan has a route."""

    def _source(self, staged: sql.Composable) -> sql.Composable:
        plan, route = self._plan, self._route
        uses = route.reads
        row = _row(
            plan,
            ((p, f"c{p}") for p, name in enumerate(plan.shape.columns) if name in uses),
            given=[f"c{len(plan.shape.columns) + p}" for p in range(len(route.given))],
        )
        lists: list[sql.Composable] = [sql.SQL("s.k")]
        lists += [sql.Identifier("b", f"b{i}") for i in range(len(route.key))]
        lists += [sql.Identifier("v", f"c{i}") for i in range(len(route.columns))]
        beside = self._beside()
        lists += [sql.Identifier("v", name) for name, _ in beside]
        base: sql.Composable = sql.SQL("")
        if route.key:
            key = _row(plan, ((place, f"b{i}") for i, place in enumerate(plan.shape.key_places)))
            # A constant of the key is not to make a base where there is none.
            base = sql.SQL(
                " LEFT JOIN LATERAL (SELECT {} FROM {} AS r WHERE {}) AS b ON s.b0 IS NOT NULL"
            ).format(
                _named("b", (_value(route.column(name)) for name in route.key)),
                key,
                self._known(),
            )
        values = [_named("c", (_value(column) for column in route.columns))]
        values += [
            sql.SQL("{} AS {}").format(value, sql.Identifier(name)) for name, value in beside
        ]
        return sql.SQL(
            "(SELECT {lists}, v.f FROM {staged} CROSS JOIN LATERAL "
            "(SELECT {values}, ({passing}) IS TRUE AS f FROM {row} AS r) AS v{base}) AS s"
        ).format(
            lists=sql.SQL(", ").join(lists),
            staged=super()._source(staged),
            values=sql.SQL(", ").join(values),
            passing=self._passing(),
            row=row,
            base=base,
        )

    def _beside(self) -> Sequence[tuple[str, sql.Composable]]:
        """Further values over the source's row that the statements need."""
        return ()

    def _passing(self) -> sql.Composable:
        """Whether the target has such a row at all."""
        return mapped.passing(self._route)

    def _known(self) -> sql.Composable:
        """The same, as far as a key tells it."""
        return sql.SQL("true")

    @cached_property
    def hook_reads(self) -> str:
        """What the hook reads of rows whose columns in `hook_sends` come as arrays of texts: JSON,
        an array for each row in their order. Where there is a filter, it begins with what is null
        where the filter does not let the row pass, for then it is not handed over."""
        route, places = self._route, self.hook_sends
        assert route.hook is not None
        read: list[sql.Composable] = [mapped.stored(column) for column in route.hook.reads]
        if route.where is not None:
            passing = sql.SQL("CASE WHEN {} THEN {} END")
            read = [
                passing.format(mapped.passing(route), value) for value in (sql.SQL("'t'"), *read)
            ]
        return self._text(
            "SELECT json_agg(json_build_array({texts}) ORDER BY s.n)::text "
            "FROM unnest({arrays}) WITH ORDINALITY AS s ({members}, n) "
            "CROSS JOIN LATERAL (SELECT {values} FROM {row} AS r OFFSET 0) AS v",
            texts=sql.SQL(", ").join(
                mapped.text_of(sql.Identifier("v", f"c{place}")) for place in range(len(read))
            ),
            arrays=sql.SQL(", ").join(
                sql.SQL(f"${number}::text[]") for number in range(1, len(places) + 1)
            ),
            members=names.columns(f"c{place}" for place in places),
            values=_named("c", read),
            row=_row(self._plan, ((place, f"c{place}") for place in places)),
        )

    @cached_property
    def hook_sends(self) -> Sequence[int]:
        """The places of the source's columns that what the hook reads is made of."""
        route = self._route
        assert route.hook is not None
        uses = {*route.where_uses, *(name for one in route.hook.reads for name in one.uses)}
        return [place for place, name in enumerate(self._plan.shape.columns) if name in uses]

    def _members(self) -> list[str]:
        columns = len(self._plan.shape.columns) + len(self._route.given)
        return [f"c{place}" for place in range(columns)]

    @property
    def plan(self) -> TablePlan:
        return self._plan

    @property
    def _route(self) -> Route:
        assert self._plan.route is not None
        return self._plan.route

    def _values(self) -> list[sql.Composable]:
        return [sql.Identifier("s", f"c{place}") for place in range(len(self._columns))]

    def _base(self) -> list[sql.Composable]:
        return [sql.Identifier("s", f"b{i}") for i in range(len(self._route.key))]

    @property
    def _filters(self) -> bool:
        """Whether all of a row must be known, because it may not have been on the target."""
        return self._route.where is not None

    def _key_places(self) -> Sequence[int]:
        return [self._columns.index(name) for name in self._route.key]

    def _chosen(self, kind: str) -> sql.Composable:
        chosen = super()._chosen(kind)
        return sql.SQL("{} AND s.f").format(chosen) if self._filters else chosen

    def _delete_unwanted(self) -> str | None:
        if not self._filters:
            return None
        return self._text(
            "DELETE FROM {alone} AS t USING {rows} WHERE s.k = {kind} AND NOT s.f AND {same}",
            kind=sql.Literal(COMPLETE),
            same=self._same_key(self._own_key()),
        )

    def _kept(self, kind: str) -> Collection[int]:
        shape, route = self._plan.shape, self._route
        absent = {shape.columns[place] for place in unchanged_places(kind)}
        # A value that is made of absent columns alone is as absent as they are.
        halves = [
            column.name
            for column in route.columns
            if absent.intersection(column.uses) and not absent.issuperset(column.uses)
        ]
        if halves or self._filters:
            raise StreamHalted(
                "CDCM-MAPPING-IDENTITY",
                f"an update of {route.source} comes without the values that the mapping to "
                f"{route.target} needs ({', '.join(sorted(absent))})",
                str(route.source),
                f"ALTER TABLE {route.source} REPLICA IDENTITY FULL on the source, then "
                f"`cdc-migrator backfill --again '{shape.name}'` reads the table again.",
            )
        return [
            place for place, column in enumerate(route.columns) if absent.intersection(column.uses)
        ]


def _row(
    plan: TablePlan, members: Iterable[tuple[int, str]], given: Sequence[str] = ()
) -> sql.Composable:
    """The source's columns at these places, made of staged texts, and what the hook gives."""
    columns = [
        sql.SQL("{} AS {}").format(
            plan.builds[place](sql.Identifier("s", member)),
            sql.Identifier(plan.shape.columns[place]),
        )
        for place, member in members
    ]
    columns += [
        sql.SQL("{} AS {}").format(
            sql.Identifier("s", member), sql.Identifier(mapping.given(place))
        )
        for place, member in enumerate(given)
    ]
    return sql.SQL("(SELECT {})").format(sql.SQL(", ").join(columns))


def _named(letter: str, values: Iterable[sql.Composable]) -> sql.Composable:
    return sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(value, sql.Identifier(f"{letter}{place}"))
        for place, value in enumerate(values)
    )


def _value(column: MappedColumn) -> sql.Composable:
    """What is assigned to the column of the target."""
    value = mapped.written(column)
    if column.common:
        return value
    return sql.SQL("{}::{}").format(value, names.type_name(column.type_text))
