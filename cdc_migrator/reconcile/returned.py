"""Write rows that come back from the target, at an alignment point: of a table that has more.

What the source's row has beside stays, as where the stream is applied (`apply.returned`): rows are
finished in a table of their own with what is there, and take its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import mapped, names
from cdc_migrator.databases.postgres.types import equality
from cdc_migrator.model.mapping import Returning, Route
from cdc_migrator.reconcile import expressions
from cdc_migrator.reconcile.narrow import Key
from cdc_migrator.reconcile.pairs import Pair

_DONE = sql.Identifier("pg_temp", "cdcm_returned")


def write(
    target: psycopg.Connection, pair: Pair, keys: Sequence[Key], rows: sql.Composable
) -> None:
    """Make the target's rows of these keys what `rows` says, in the caller's transaction.

    Args:
        pair: whose route has `back`.
        rows: all that there are of these keys, as a row source ``n`` of the target's columns.

    Raises psycopg.Error: the target does not accept them.
    """
    assert pair.route is not None
    assert pair.route.back is not None
    _Writing(target, pair, pair.route, pair.route.back).run(keys, rows)


class _Writing:
    """One table's rows."""

    def __init__(
        self, target: psycopg.Connection, pair: Pair, route: Route, back: Returning
    ) -> None:
        self._target = target
        self._pair = pair
        self._route = route
        self._back = back
        self._table = names.table(route.target)
        self._written = [one.name for one in route.columns]
        self._own = [name for name in self._written if name not in route.key]

    def run(self, keys: Sequence[Key], rows: sql.Composable) -> None:
        self._finish(rows)
        if self._back.part:
            self._run(
                "UPDATE ONLY {table} AS t SET {nothing} FROM {wanted} WHERE {meant} AND {gone}",
                nothing=_comma(sql.SQL("{} = NULL").format(sql.Identifier(n)) for n in self._own),
                **self._meant(keys),
            )
            self._run(
                "UPDATE ONLY {table} AS t SET {taken} FROM {done} AS d WHERE {same}",
                taken=_comma(sql.SQL("{0} = d.{0}").format(sql.Identifier(n)) for n in self._own),
                same=self._same("d"),
            )
        else:
            stored = names.columns([*self._written, *(one.name for one in self._back.kept)])
            self._run(
                "DELETE FROM ONLY {table} AS t USING {wanted} WHERE {meant} AND {gone} "
                "AND {belongs}",
                belongs=mapped.belonging(self._route),
                **self._meant(keys),
            )
            self._run(
                "DELETE FROM ONLY {table} AS t USING {done} AS d WHERE {same}", same=self._same("d")
            )
            self._run(
                "INSERT INTO {table} ({stored}) OVERRIDING SYSTEM VALUE "
                "SELECT {stored} FROM {done}",
                stored=stored,
            )
        self._run("DROP TABLE {done}")

    def _finish(self, rows: sql.Composable) -> None:
        again = {one.name: one.again for one in self._back.turned}
        values = [
            sql.SQL("{} AS {}").format(
                self._kept(name, again[name]) if name in again else sql.Identifier("n", name),
                sql.Identifier(name),
            )
            for name in self._written
        ]
        if not self._back.part:
            values += [
                sql.SQL("CASE WHEN t.ctid IS NULL THEN {} ELSE {} END AS {}").format(
                    sql.SQL("NULL") if one.default is None else mapped.expression(one.default),
                    sql.Identifier("t", one.name),
                    sql.Identifier(one.name),
                )
                for one in self._back.kept
            ]
        self._run(
            "CREATE TEMP TABLE cdcm_returned AS SELECT {values} FROM {rows} "
            "LEFT JOIN ONLY {table} AS t ON {same}",
            values=_comma(values),
            rows=rows,
            same=self._same("n"),
        )

    def _kept(self, name: str, again: str) -> sql.Composable:
        """What the row that is there has, where that would come back as the same."""
        return sql.SQL(
            "CASE WHEN t.ctid IS NOT NULL AND (SELECT ({belongs}) IS TRUE AND ({again}\n)::text "
            "IS NOT DISTINCT FROM {new}::text FROM (SELECT t.*) AS r) THEN {there} ELSE {new} END"
        ).format(
            belongs=mapped.belonging(self._route),
            again=sql.SQL(again),
            new=sql.Identifier("n", name),
            there=sql.Identifier("t", name),
        )

    def _meant(self, keys: Sequence[Key]) -> dict[str, sql.Composable]:
        """The rows of these keys that do not come back any more."""
        own = [column.target for column in self._pair.key]
        return {
            "wanted": expressions.wanted_keys(own, keys),
            "meant": expressions.same_key(own, "t"),
            "gone": sql.SQL("NOT EXISTS (SELECT FROM {} AS d WHERE {})").format(
                _DONE, self._same("d")
            ),
        }

    def _same(self, alias: str) -> sql.Composable:
        return sql.SQL(" AND ").join(
            sql.SQL("{} {} {}").format(
                sql.Identifier("t", column.name),
                equality(column.target),
                sql.Identifier(alias, column.name),
            )
            for column in self._pair.key
        )

    def _run(self, statement: str, **parts: sql.Composable) -> None:
        self._target.execute(
            sql.SQL(statement).format(**{"table": self._table, "done": _DONE, **parts})
        )


def _comma(parts: Iterable[sql.Composable]) -> sql.Composable:
    return sql.SQL(", ").join(parts)
