"""The statements of a route of the way back: rows of a table that has more than the route carries.

A row that is written keeps what it has beside: rows are finished with what the target has of them
(``t`` is the row that was there, under the base key), then take its place. A value that was cast or
computed on its way there stays as long as the row that comes back has what it was turned into. What
other routes write stays with its key (``k``).

Where another route's rows come and go with those of the table, nothing is inserted or deleted: a
row that is no more leaves its columns empty.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from psycopg import sql

from cdc_migrator.apply.mapped import MappedStatements
from cdc_migrator.apply.plan import TablePlan
from cdc_migrator.apply.stage import COMPLETE, DELETE
from cdc_migrator.databases.postgres import mapped, names
from cdc_migrator.databases.postgres.types import equality
from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.mapping import Kept, Returning, Turned

# The kind of a new row under a key whose row goes.
INSTEAD = "u:"


class ReturnedStatements(MappedStatements):
    """All statements of a table whose plan has a route that comes back."""

    def __init__(
        self,
        plan: TablePlan,
        number: int,
        render: Callable[[sql.Composable], str],
        few: bool = False,
    ) -> None:
        super().__init__(plan, number, render, few)
        stored = self._stored()
        self.create_final = self._text(
            "CREATE TEMP TABLE {final} AS SELECT {columns} FROM {target} WITH NO DATA",
            final=sql.Identifier(f"cdcm_final_{number}"),
            columns=names.columns(stored),
        )
        self.finish_complete = self._finish(COMPLETE, ())
        if self._back.part:
            own = [name for name in stored if name not in self._route.key]
            self.delete = self._text(
                "UPDATE ONLY {target} AS t SET {settings} FROM {rows} "
                "WHERE s.k = {kind} AND {same}",
                settings=_list(sql.SQL("{} = NULL").format(sql.Identifier(n)) for n in own),
                kind=sql.Literal(DELETE),
                same=self._same_key(self._base()),
            )
            self.delete_finals = None
            self.insert_finals = self._text(
                "UPDATE ONLY {target} AS t SET {settings} FROM {final} AS f WHERE {same}",
                settings=_list(sql.SQL("{0} = f.{0}").format(sql.Identifier(n)) for n in own),
                same=self._same_key([sql.Identifier("f", n) for n in self._route.key]),
            )
        else:
            self.insert_finals = self._text(
                "INSERT INTO {target} ({columns}) OVERRIDING SYSTEM VALUE "
                "SELECT {columns} FROM {final}",
                columns=names.columns(stored),
            )

    def update(self, kind: str) -> str | None:
        """Rows are finished and written anew: `Merger` asks for nothing else."""
        raise NotImplementedError

    def finish_partial(self, kind: str) -> str:
        """Finished rows of this kind, with what they leave as it is from the row at their base."""
        kept, part = self._kept(kind), self._back.part
        moved = kind.startswith("m")
        if moved and kept and (part or self._back.apart):
            raise self._halves()
        made = self._made.get(("finish", kind))
        if made is None:
            made = self._made["finish", kind] = self._finish(kind, kept)
        return made

    def _finish(self, kind: str, absent: Collection[int]) -> str:
        back, own = self._back, self._own_key()
        base: Sequence[sql.Composable] | None = own
        if not back.part:
            if kind.startswith("m"):
                base = self._base()
            elif kind in (COMPLETE, INSTEAD):
                base = None
        # A row may have come from another table.
        there = base is not None and not (kind.startswith("m") and back.apart)
        joins = [self._joined("t", base, there)]
        if not back.part and any(one.by_key for one in back.kept):
            joins.append(self._of_others(None if kind == COMPLETE else own))
        return self._text(
            "INSERT INTO {final} SELECT {values} FROM {rows} {joins} WHERE {chosen}",
            joins=sql.SQL(" ").join(joins),
            values=_list(self._finished(absent)),
            chosen=self._chosen(kind),
        )

    def _joined(
        self, alias: str, key: Sequence[sql.Composable] | None, there: bool
    ) -> sql.Composable:
        """The target's row at this key, if any; `there`: only where there is one."""
        return sql.SQL("{} ONLY {} AS {} ON {}").format(
            sql.SQL("JOIN" if there else "LEFT JOIN"),
            self._target,
            sql.Identifier(alias),
            sql.SQL("false") if key is None else self._same(alias, key),
        )

    def _of_others(self, key: Sequence[sql.Composable] | None) -> sql.Composable:
        """``k``; a row that was left out on the way there has nothing that others write."""
        joined = self._joined("k", key, False)
        belongs = self._route.belongs
        if key is None or belongs is None:
            return joined
        return sql.SQL("{} AND (SELECT {} FROM (SELECT k.*) AS r)").format(
            joined, mapped.expression(belongs)
        )

    def _same(self, alias: str, values: Sequence[sql.Composable]) -> sql.Composable:
        return sql.SQL(" AND ").join(
            sql.SQL("{} {} {}").format(sql.Identifier(alias, column.name), equality(column), value)
            for column, value in zip(self._plan.key, values, strict=True)
        )

    @property
    def _back(self) -> Returning:
        assert self._route.back is not None
        return self._route.back

    def _stored(self) -> list[str]:
        """The columns of finished rows; those that a part does not have are not touched."""
        kept = () if self._back.part else self._back.kept
        return [*self._columns, *(one.name for one in kept)]

    def _finished(self, absent: Collection[int]) -> list[sql.Composable]:
        turned = {one.name: place for place, one in enumerate(self._back.turned)}
        values: list[sql.Composable] = []
        for place, (name, value) in enumerate(zip(self._columns, self._values(), strict=True)):
            there = sql.Identifier("t", name)
            if place in absent:
                values.append(there)
            elif name in turned:
                values.append(
                    sql.SQL("CASE WHEN {} THEN {} ELSE {} END").format(
                        self._unchanged(turned[name]), there, value
                    )
                )
            else:
                values.append(value)
        if not self._back.part:
            values += [self._left(one) for one in self._back.kept]
        return values

    def _unchanged(self, place: int) -> sql.Composable:
        """Whether the row that was there still makes what the row that comes back has."""
        there = sql.SQL("(SELECT {} FROM (SELECT t.*) AS r)").format(
            mapped.expression(self._turned(place).turned)
        )
        return sql.SQL("t.ctid IS NOT NULL AND {} = {}").format(
            there, sql.Identifier("s", f"x{place}")
        )

    def _left(self, one: Kept) -> sql.Composable:
        there = sql.Identifier("k" if one.by_key else "t", one.name)
        if one.default is None:
            return there
        return sql.SQL("CASE WHEN t.ctid IS NULL THEN {} ELSE {} END").format(
            mapped.expression(one.default), there
        )

    def _turned(self, place: int) -> Turned:
        return self._back.turned[place]

    def _beside(self) -> Sequence[tuple[str, sql.Composable]]:
        return [
            (f"x{place}", sql.SQL("ROW({})::text").format(names.columns(one.uses)))
            for place, one in enumerate(self._back.turned)
        ]

    def _passing(self) -> sql.Composable:
        return self._known()

    def _known(self) -> sql.Composable:
        apart = self._back.apart
        return sql.SQL("true") if apart is None else mapped.expression(apart)

    def _chosen(self, kind: str) -> sql.Composable:
        chosen = sql.SQL("s.k = {}").format(sql.Literal(kind))
        return chosen if self._back.apart is None else sql.SQL("{} AND s.f").format(chosen)

    @property
    def _filters(self) -> bool:
        return False

    def _halves(self) -> StreamHalted:
        route = self._route
        return StreamHalted(
            "CDCM-MAPPING-IDENTITY",
            f"a row of {route.source} has changed its key and comes without all of its values, "
            f"which {route.target} needs",
            str(route.source),
            f"ALTER TABLE {route.source} REPLICA IDENTITY FULL on the target. This row has gone "
            "by: compare both sides and decide.",
        )


def _list(parts: Iterable[sql.Composable]) -> sql.Composable:
    return sql.SQL(", ").join(parts)
