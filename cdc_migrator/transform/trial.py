"""Run a route over every row of its table and count what fails. Reads the source; keeps nothing.

One query looks at a whole table. Where it fails, ranges of its blocks are halved until those that
fail are small, and the rows of these are tried one by one, each column on its own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import mapped, names
from cdc_migrator.databases.postgres.coded import coded
from cdc_migrator.model.mapping import MappedColumn, Route
from cdc_migrator.model.tables import Table

FILTER, HOOK = "where", "hook"
_SIZE = "SELECT pg_relation_size(to_regclass({})) / current_setting('block_size')::int8"
# Blocks of a range that is not halved any more.
_SMALL = 32
NULL, TOO_LONG = "23502", "22001"
BAD_VALUES = frozenset({"22", "23", "38", "39", "44", "P0"})


@dataclass(frozen=True, slots=True)
class Failing:
    """Rows on which one thing fails in one way.

    Attributes:
        column: the target's; `FILTER` for the filter, `HOOK` for the hook.
        sqlstate: empty where it is not the server that says so.
        said: how the hook fails.
        keys: of some of the rows, where they were asked for: the key's columns as texts.
    """

    column: str
    sqlstate: str
    rows: int
    keys: tuple[Mapping[str, str | None], ...] = ()
    said: str = ""


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of one route: rows that were looked at, that its filter lets through, that fail."""

    route: Route
    rows: int
    passing: int
    failing: tuple[Failing, ...]


@dataclass(slots=True)
class _Count:
    """What is counted so far: by column and SQLSTATE."""

    rows: int = 0
    passing: int = 0
    failing: Counter[tuple[str, str]] = field(default_factory=Counter)
    keys: dict[tuple[str, str], list[dict[str, str | None]]] = field(default_factory=dict)


def trial(
    source: psycopg.Connection,
    table: Table,
    there: Table | None,
    route: Route,
    examples: int = 0,
) -> Tried:
    """Count what fails of one route, at one snapshot.

    Args:
        there: the target's table; what its columns demand is looked at as well.
        examples: so many keys of each kind of failure are named.

    Raises:
        MigratorError: the source failed, or does not let us read.
    """
    try:
        with source.transaction():
            source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            work = _Work(source, table, there, route, examples)
            work.run()
    except psycopg.Error as exc:
        raise coded(exc, "source", f"trying the mapping of {table.name}") from exc
    found = work.found
    failing = tuple(
        Failing(column, state, count, tuple(found.keys.get((column, state), ())))
        for (column, state), count in sorted(found.failing.items())
    )
    return Tried(route, found.rows, found.passing, failing)


class _Work:
    """One route over one table in one transaction."""

    def __init__(
        self,
        source: psycopg.Connection,
        table: Table,
        there: Table | None,
        route: Route,
        examples: int,
    ) -> None:
        self._source = source
        self._table = table
        self._route = route
        self._examples = examples
        self._demanding = {
            one.name for one in (there.columns if there is not None else ()) if one.not_null
        } | set(route.key)
        # What is a column of the source, of the same type, cannot fail.
        self._tried = [
            one
            for one in route.made
            if one.of is None or one.cast or (one.name in self._demanding and not self._full(one))
        ]
        self.found = _Count()

    def run(self) -> None:
        """Look at all of it."""
        name = names.table(self._table.name)
        (blocks,) = self._row(sql.SQL(_SIZE).format(sql.Literal(name.as_string())))
        self._look(0, None, int(blocks))
        self.found.rows = self.found.passing
        if self._route.where is not None:
            (self.found.rows,) = self._row(sql.SQL("SELECT count(*) FROM ONLY {}").format(name))

    def _look(self, first: int, end: int | None, blocks: int) -> None:
        """Rows of blocks [first, end); None is the open end, at `blocks` or behind it."""
        try:
            with self._source.transaction():
                passing, *counts = self._row(self._whole(first, end))
        except psycopg.Error as exc:
            if (exc.sqlstate or "")[:2] not in BAD_VALUES:
                raise
            last = blocks if end is None else end
            if last - first <= _SMALL:
                self._singly(first, end)
                return
            middle = (first + last) // 2
            self._look(first, middle, blocks)
            self._look(middle, end, blocks)
            return
        failing = Counter[tuple[str, str]]()
        for one, filled, long in zip(self._tried, counts[::2], counts[1::2], strict=True):
            failing[one.name, TOO_LONG] = long
            if one.name in self._demanding:
                failing[one.name, NULL] = passing - filled
        if self._examples and failing.total():
            # Who goes row by row names keys.
            self._singly(first, end)
            return
        self.found.passing += passing
        self.found.failing += failing

    def _full(self, one: MappedColumn) -> bool:
        return one.of is not None and self._table.column(one.of).not_null

    def _row(self, query: sql.Composed) -> list[int]:
        row = self._source.execute(query).fetchone()
        assert row is not None
        return list(row)

    def _whole(self, first: int, end: int | None) -> sql.Composed:
        """Rows that pass; of each column how many have a value, and how many one too long."""
        counts = [
            sql.SQL("count({}), count(*) FILTER (WHERE {})").format(mapped.stored(one), _long(one))
            for one in self._tried
        ]
        return sql.SQL("SELECT {} FROM {} WHERE {}").format(
            sql.SQL(", ").join([sql.SQL("count(*)"), *counts]),
            self._rows(first, end),
            mapped.passing(self._route),
        )

    def _rows(self, first: int, end: int | None) -> sql.Composed:
        """The rows of some blocks, as a row source; a filter of the user's comes after it."""
        table = sql.SQL("ONLY {}").format(names.table(self._table.name))
        if first == 0 and end is None:
            return table
        low = sql.SQL("ctid >= {}::tid").format(sql.Literal(f"({first},0)"))
        high: sql.Composable = sql.SQL("true")
        if end is not None:
            high = sql.SQL("ctid < {}::tid").format(sql.Literal(f"({end},0)"))
        return sql.SQL("(SELECT ctid, * FROM {} WHERE {} AND {}) AS cdcm_rows").format(
            table, low, high
        )

    def _singly(self, first: int, end: int | None) -> None:
        """The same row by row, each column on its own."""
        self._source.execute(sql.SQL("DO {}").format(sql.Literal(self._program(first, end))))
        (text,) = self._source.execute("SELECT current_setting(%s)", (_RESULT,)).fetchone() or ("",)
        result = json.loads(text)
        self.found.passing += result["passing"]
        for at, state, count, keys in result["failing"]:
            column = FILTER if at < 0 else self._tried[at].name
            self.found.failing[column, state] += count
            kept = self.found.keys.setdefault((column, state), [])
            kept += keys[: self._examples - len(kept)]

    def _program(self, first: int, end: int | None) -> str:
        here = sql.SQL("FROM ONLY {} WHERE ctid = cdcm_place").format(names.table(self._table.name))
        passing = mapped.passing(self._route)
        steps = [
            sql.SQL(_TRY).format(
                ask=sql.SQL("SELECT {} INTO cdcm_passes {};").format(passing, here),
                number=sql.Literal("-1"),
                note=self._note(here),
            ),
            sql.SQL(
                "IF cdcm_state <> '' OR cdcm_passes IS NOT TRUE THEN CONTINUE; END IF;\n"
                "cdcm_passing := cdcm_passing + 1;"
            ),
        ]
        for at, one in enumerate(self._tried):
            stored = mapped.stored(one)
            ask = sql.SQL(
                "SELECT CASE WHEN num_nulls({}) = 1 THEN {} WHEN {} THEN {} ELSE '' END "
                "INTO cdcm_state {};"
            ).format(
                stored,
                sql.Literal(NULL if one.name in self._demanding else ""),
                _long(one),
                sql.Literal(TOO_LONG),
                here,
            )
            steps.append(
                sql.SQL(_TRY).format(ask=ask, number=sql.Literal(str(at)), note=self._note(here))
            )
        return (
            sql.SQL(_PROGRAM)
            .format(
                rows=self._rows(first, end),
                steps=sql.SQL("\n").join(steps),
                result=sql.Literal(_RESULT),
            )
            .as_string(self._source)
        )

    def _note(self, here: sql.Composable) -> sql.Composable:
        """Keep the row's key, while few are kept."""
        if not self._examples:
            return sql.SQL("")
        key = self._table.key or ("ctid",)
        pairs = sql.SQL(", ").join(
            sql.SQL("{}, concat({})").format(sql.Literal(name), sql.Identifier(name))
            for name in key
        )
        return sql.SQL(
            "IF jsonb_array_length(coalesce(cdcm_keys -> cdcm_kind, '[]')) < {} THEN\n"
            "SELECT cdcm_keys || jsonb_build_object(cdcm_kind, coalesce(cdcm_keys -> cdcm_kind, "
            "'[]') || jsonb_build_array(jsonb_build_object({}))) INTO cdcm_keys {};\nEND IF;"
        ).format(sql.Literal(self._examples), pairs, here)


_RESULT = "cdc_migrator.trial"
_PROGRAM = """
#variable_conflict use_column
DECLARE
    cdcm_place tid; cdcm_passes boolean; cdcm_state text; cdcm_kind text;
    cdcm_passing int8 := 0; cdcm_counts jsonb := '{{}}'; cdcm_keys jsonb := '{{}}';
BEGIN
    FOR cdcm_place IN SELECT ctid FROM {rows} LOOP
        {steps}
    END LOOP;
    PERFORM set_config({result}, jsonb_build_object('passing', cdcm_passing, 'failing', (
        SELECT coalesce(jsonb_agg(jsonb_build_array(split_part(key, ' ', 1)::int,
            split_part(key, ' ', 2), value::int8, coalesce(cdcm_keys -> key, '[]'))), '[]')
        FROM jsonb_each_text(cdcm_counts)))::text, true);
END
"""
_TRY = """
BEGIN
    cdcm_state := '';
    {ask}
EXCEPTION WHEN OTHERS THEN
    IF left(SQLSTATE, 2) NOT IN ('22', '23', '38', '39', '44', 'P0') THEN RAISE; END IF;
    cdcm_state := SQLSTATE;
END;
IF cdcm_state <> '' THEN
    cdcm_kind := {number} || ' ' || cdcm_state;
    cdcm_counts := cdcm_counts || jsonb_build_object(
        cdcm_kind, coalesce((cdcm_counts ->> cdcm_kind)::int8, 0) + 1);
    {note}
END IF;
"""


def _long(column: MappedColumn) -> sql.Composable:
    """The value is longer than the target's column: an assignment refuses what a cast would cut."""
    fits = mapped.fits(column) if column.cast else None
    return sql.SQL("false") if fits is None else sql.SQL("NOT ({})").format(fits)
