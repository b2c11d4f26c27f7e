"""The SQL that brings one table's staged rows into it. Builds text only; runs nothing.

In every statement ``t`` is the target table, ``s`` the staged rows (all text: ``k`` the kind,
``b0…`` the base key, ``c0…`` the columns) and ``f`` the typed table of finished rows. ONLY keeps
tables that inherit from the target out of it.

The staged rows are in a temporary table, or parameters of the statement: an array for each column.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from psycopg import sql

from cdc_migrator.apply.plan import TablePlan
from cdc_migrator.apply.stage import COMPLETE, DELETE, unchanged_places
from cdc_migrator.databases.postgres import names
from cdc_migrator.databases.postgres.types import equality


class Statements:
    """All statements of one table, as text ready to run; those for a kind are made on demand.

    Args:
        number: tells the temporary tables of one session apart.
        render: makes text of composed SQL for the session's encoding.
        few: the staged rows are parameters.
    """

    def __init__(
        self,
        plan: TablePlan,
        number: int,
        render: Callable[[sql.Composable], str],
        few: bool = False,
    ) -> None:
        self._plan = plan
        self._render = render
        self._target = names.table(plan.target)
        self._stage = sql.Identifier("pg_temp", f"cdcm_stage_{number}")
        self._final = sql.Identifier("pg_temp", f"cdcm_final_{number}")
        self._columns = [column.name for column in plan.columns]
        self._rows = self._source(self._parameters() if few else self._stage)
        self._made: dict[tuple[str, str], str] = {}
        self.create_stage = self._text(
            "CREATE TEMP TABLE {stage} ({members})",
            stage=sql.Identifier(f"cdcm_stage_{number}"),
            members=_list(sql.SQL("{} text").format(m) for m in self._stage_members()),
        )
        self.create_final = self._text(
            "CREATE TEMP TABLE {final} AS SELECT {columns} FROM {target} WITH NO DATA",
            final=sql.Identifier(f"cdcm_final_{number}"),
            columns=names.columns(self._columns),
        )
        self.drop = self._text("DROP TABLE IF EXISTS {stage}, {final}")
        self.clear_stage = self._text("TRUNCATE {stage}")
        self.clear_final = self._text("TRUNCATE {final}")
        self.copy = self._text("COPY {stage} FROM STDIN")
        self.copy_straight = self._text(
            "COPY {target} ({columns}) FROM STDIN", columns=names.columns(self._columns)
        )
        self.insert = self._insert("")
        if plan.shape.keys is None:
            self.delete_equal = self._delete_equal()
        else:
            self.upsert = self._insert(self._on_conflict())
            self.delete = self._text(
                "DELETE FROM {alone} AS t USING {rows} WHERE s.k = {kind} AND {same}",
                kind=sql.Literal(DELETE),
                same=self._same_key(self._base()),
            )
            self.delete_unwanted = self._delete_unwanted()
            self.key_texts = self._text(
                "SELECT ARRAY[{texts}] FROM {rows} WHERE s.k = {kind}",
                # concat, not a cast: that writes some types in another way.
                texts=_list(sql.SQL("concat({})").format(value) for value in self._base()),
                kind=sql.Literal(DELETE),
            )
            self.finish_complete = self._text(
                "INSERT INTO {final} SELECT {values} FROM {rows} WHERE {chosen}",
                values=_list(self._values()),
                chosen=self._chosen(COMPLETE),
            )
            self.delete_finals: str | None = self._text(
                "DELETE FROM {alone} AS t USING {final} AS f WHERE {same}",
                same=self._same_key([sql.Identifier("f", c.name) for c in plan.key]),
            )
            self.insert_finals = self._text(
                "INSERT INTO {target} ({columns}) OVERRIDING SYSTEM VALUE "
                "SELECT {columns} FROM {final}",
                columns=names.columns(self._columns),
            )

    def update(self, kind: str) -> str | None:
        """Set what rows of this kind, ``u:…`` or complete, carry; None where they have but a key.

        What an upsert does for a row that is there it does after it has locked the row, which it
        logs.
        """
        fixed = {*self._kept(kind), *self._key_places()}
        settings = [
            sql.SQL("{} = {}").format(sql.Identifier(name), value)
            for place, (name, value) in enumerate(zip(self._columns, self._values(), strict=True))
            if place not in fixed
        ]
        if not settings:
            return None
        return self._remember(
            "update",
            kind,
            "UPDATE {alone} AS t SET {settings} FROM {rows} WHERE s.k = {kind} AND {same}",
            settings=_list(settings),
            kind=sql.Literal(kind),
            same=self._same_key(self._own_key()),
        )

    def finish_partial(self, kind: str) -> str:
        """Finished rows of this kind: what they leave as it is comes from the target."""
        kept = self._kept(kind)
        values = [
            sql.Identifier("t", name) if place in kept else value
            for place, (name, value) in enumerate(zip(self._columns, self._values(), strict=True))
        ]
        base = self._base() if kind.startswith("m") else self._own_key()
        return self._remember(
            "finish",
            kind,
            "INSERT INTO {final} SELECT {values} FROM {rows}, {alone} AS t "
            "WHERE s.k = {kind} AND {same}",
            values=_list(values),
            kind=sql.Literal(kind),
            same=self._same_key(base),
        )

    def places(self, place: str) -> str:
        """The different numbers that all staged keys, old and new, have by an SQL expression over
        the key columns."""
        made = self._made.get(("places", place))
        if made is None:
            keys = [sql.Identifier(column.name) for column in self._plan.key]
            base, own = (
                _list(
                    sql.SQL("{} AS {}").format(value, name)
                    for value, name in zip(values, keys, strict=True)
                )
                for values in (self._base(), self._own_key())
            )
            made = self._made["places", place] = self._text(
                "SELECT DISTINCT {place} FROM (SELECT {base} FROM {rows} "
                "WHERE s.b0 IS NOT NULL UNION ALL SELECT {own} FROM {rows} "
                "WHERE s.k <> {kind}) AS q",
                place=sql.SQL(place),
                base=base,
                own=own,
                kind=sql.Literal(DELETE),
            )
        return made

    def _remember(self, what: str, of_kind: str, pattern: str, **parts: sql.Composable) -> str:
        made = self._made.get((what, of_kind))
        if made is None:
            made = self._made[what, of_kind] = self._text(pattern, **parts)
        return made

    def _insert(self, on_conflict: str) -> str:
        return self._text(
            "INSERT INTO {target} AS t ({columns}) OVERRIDING SYSTEM VALUE SELECT {values} "
            "FROM {rows} WHERE {chosen}" + on_conflict,
            columns=names.columns(self._columns),
            values=_list(self._values()),
            chosen=self._chosen(COMPLETE),
            key=names.columns(column.name for column in self._plan.key),
            settings=_list(
                sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
                for name in self._settable()
            ),
        )

    def _on_conflict(self) -> str:
        action = "DO UPDATE SET {settings}" if self._settable() else "DO NOTHING"
        return " ON CONFLICT ({key}) " + action

    def _settable(self) -> list[str]:
        places = self._key_places()
        return [name for place, name in enumerate(self._columns) if place not in places]

    def _chosen(self, kind: str) -> sql.Composable:
        """Whether a staged row is of this kind and is written."""
        return sql.SQL("s.k = {}").format(sql.Literal(kind))

    def _delete_unwanted(self) -> str | None:
        """Remove what complete rows say that the target is not to have; None: it has them all."""
        return None

    def _kept(self, kind: str) -> Collection[int]:
        """The places of the columns that rows of this kind leave as they are."""
        return unchanged_places(kind)

    def _key_places(self) -> Sequence[int]:
        """The places of the key's columns."""
        return self._plan.shape.key_places

    def _delete_equal(self) -> str:
        """One row of the target for each staged row with the same text, whatever their order."""
        return self._text(
            "DELETE FROM {alone} AS t USING ("
            "SELECT x.ctid AS place FROM (SELECT t.ctid, {theirs} AS image, "
            "row_number() OVER (PARTITION BY {theirs}) AS n FROM {alone} AS t "
            "WHERE {theirs} IN (SELECT {ours} FROM {rows} WHERE {chosen})) AS x "
            "JOIN (SELECT {ours} AS image, count(*) AS n FROM {rows} WHERE {chosen} "
            "GROUP BY 1) AS w ON w.image = x.image AND x.n <= w.n) AS d WHERE t.ctid = d.place",
            theirs=sql.SQL("ROW({})::text").format(names.columns(self._columns, "t")),
            ours=sql.SQL("ROW({})::text").format(_list(self._values())),
            chosen=self._chosen(DELETE),
        )

    def _source(self, staged: sql.Composable) -> sql.Composable:
        """The staged rows as ``s``."""
        return sql.SQL("{} AS s ({})").format(staged, _list(self._stage_members()))

    def _parameters(self) -> sql.Composable:
        """The staged rows as arrays that come with the statement."""
        number = len(self._stage_members())
        return sql.SQL("unnest({})").format(
            _list(sql.SQL(f"${place}::text[]") for place in range(1, number + 1))
        )

    def _stage_members(self) -> list[sql.Identifier]:
        bases = [f"b{i}" for i in range(len(self._plan.shape.key_places))]
        return [sql.Identifier(n) for n in ("k", *bases, *self._members())]

    def _members(self) -> list[str]:
        return [f"c{place}" for place in range(len(self._plan.shape.columns))]

    def _values(self) -> list[sql.Composable]:
        """Each column's value from its staged text."""
        return [
            build(sql.Identifier("s", member))
            for build, member in zip(self._plan.builds, self._members(), strict=True)
        ]

    def _base(self) -> list[sql.Composable]:
        """The values of the staged base key."""
        return [
            self._plan.builds[place](sql.Identifier("s", f"b{i}"))
            for i, place in enumerate(self._plan.shape.key_places)
        ]

    def _own_key(self) -> list[sql.Composable]:
        values = self._values()
        return [values[place] for place in self._key_places()]

    def _same_key(self, values: Iterable[sql.Composable]) -> sql.Composable:
        """Typed comparison, so that the key's index serves it."""
        return sql.SQL(" AND ").join(
            sql.SQL("{} {} {}").format(sql.Identifier("t", column.name), equality(column), value)
            for column, value in zip(self._plan.key, values, strict=True)
        )

    def _text(self, pattern: str, **parts: sql.Composable) -> str:
        known = {
            "target": self._target,
            "alone": names.alone(self._plan.target, self._plan.divided),
            "stage": self._stage,
            "final": self._final,
            "rows": self._rows,
        }
        return self._render(sql.SQL(pattern).format(**{**known, **parts}))


def _list(parts: Iterable[sql.Composable]) -> sql.Composable:
    return sql.SQL(", ").join(parts)
