"""Run a route's hook over every row of its table and count what fails. Reads the source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import mapped, names
from cdc_migrator.databases.postgres.coded import coded
from cdc_migrator.hook.calling import BATCH, Caller, Cells, HookRefused
from cdc_migrator.model.mapping import MappedColumn, Route
from cdc_migrator.model.tables import Table
from cdc_migrator.transform.hooks import reading
from cdc_migrator.transform.trial import BAD_VALUES, HOOK, NULL, TOO_LONG, Failing

Key = tuple[str | None, ...]
# Of the hook, or of a column that it gives: which one, an SQLSTATE or nothing, how the hook fails.
_Kind = tuple[str, str, str]
_RESULT = "cdc_migrator.trial"
_PROGRAM = """
DECLARE
    {given} text; cdcm_states text[];
BEGIN
    FOREACH {given} IN ARRAY {texts}::text[] LOOP
        BEGIN
            PERFORM {value};
            cdcm_states := cdcm_states || ''::text;
        EXCEPTION WHEN OTHERS THEN
            IF left(SQLSTATE, 2) <> ALL ({bad}::text[]) THEN RAISE; END IF;
            cdcm_states := cdcm_states || SQLSTATE;
        END;
    END LOOP;
    PERFORM set_config({result}, array_to_string(cdcm_states, ','), true);
END
"""


def hook_trial(
    source: psycopg.Connection,
    table: Table,
    there: Table | None,
    route: Route,
    examples: int = 0,
) -> tuple[Failing, ...]:
    """Count what fails of the hook and of what it gives, at one snapshot.

    Where what it reads fails, nothing else is told. Whether it gives the same again is looked at.

    Args:
        there: the target's table; what its columns demand is looked at as well.
        examples: so many keys of each kind of failure are named.

    Raises:
        MigratorError: the source failed, or does not let us read.
    """
    work = _Work(source, table, there, route, examples)
    try:
        with source.transaction():
            source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            for keys, rows in work.read():
                work.look(keys, rows)
    except psycopg.Error as exc:
        if (exc.sqlstate or "")[:2] in BAD_VALUES:
            return (Failing(HOOK, "", 0, said="is not tried, for what it reads fails"),)
        raise coded(exc, "source", f"trying the hook of {table.name}") from exc
    return tuple(
        Failing(
            kind[0],
            kind[1],
            count,
            tuple(dict(zip(work.key, one, strict=True)) for one in work.keys[kind]),
            kind[2],
        )
        for kind, count in sorted(work.failing.items())
    )


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
        self._route = route
        self._caller = Caller(route)
        self._examples = examples
        self._demanding = {
            one.name for one in (there.columns if there is not None else ()) if one.not_null
        }
        self.key = table.key or ("ctid",)
        self.failing: Counter[_Kind] = Counter()
        self.keys: dict[_Kind, list[Key]] = {}

    def read(self) -> Iterator[tuple[list[Key], list[Cells]]]:
        """Portions of rows: their keys, and what the hook reads of them."""
        query = sql.SQL("SELECT {}, {} FROM ONLY {} WHERE {}").format(
            sql.SQL(", ").join(sql.SQL("concat({})").format(sql.Identifier(n)) for n in self.key),
            reading(self._route),
            names.table(self._route.source),
            mapped.passing(self._route),
        )
        width = len(self.key)
        with self._source.cursor(name="cdcm_trial") as cursor:
            cursor.execute(query)
            while some := cursor.fetchmany(BATCH):
                yield [row[:width] for row in some], [row[width:] for row in some]

    def look(self, keys: Sequence[Key], rows: Sequence[Cells]) -> None:
        """Run it over one portion; where that fails, row by row."""
        try:
            given = self._caller.run(rows)
        except HookRefused:
            keys, rows, given = self._those_that_do_not_fail(keys, rows)
        if not self._same(rows):
            self._note((HOOK, "", "does not give the same for the same rows"), keys)
        self._take(keys, given)

    def _same(self, rows: Sequence[Cells]) -> bool:
        try:
            return self._caller.same_again(rows)
        except HookRefused:
            return False  # it fails on some of these together, or another time

    def _those_that_do_not_fail(
        self, keys: Sequence[Key], rows: Sequence[Cells]
    ) -> tuple[list[Key], list[Cells], list[Cells]]:
        left: tuple[list[Key], list[Cells], list[Cells]] = ([], [], [])
        for key, row in zip(keys, rows, strict=True):
            try:
                (cells,) = self._caller.run([row])
            except HookRefused as refused:
                self._note((HOOK, "", refused.why), [key])
            else:
                for of, one in zip(left, (key, row, cells), strict=True):
                    of.append(one)
        return left

    def _take(self, keys: Sequence[Key], given: Sequence[Cells]) -> None:
        for column, cells in zip(self._route.given, zip(*given, strict=True), strict=False):
            if column.name in self._demanding:
                empty = [key for key, cell in zip(keys, cells, strict=True) if cell is None]
                self._note((column.name, NULL, ""), empty)
            self._try(column, keys, cells)

    def _try(self, column: MappedColumn, keys: Sequence[Key], cells: Sequence[str | None]) -> None:
        """See which texts are values of a column's type, and fit into it."""
        fits = mapped.fits(column)
        long = sql.SQL("false") if fits is None else sql.SQL("NOT ({})").format(fits)
        query = sql.SQL(
            "SELECT count({}), coalesce(array_agg(n) FILTER (WHERE {}), '{{}}') "
            "FROM unnest({}::text[]) WITH ORDINALITY AS cdcm_given ({}, n)"
        ).format(
            mapped.stored(column), long, sql.Literal([*cells]), sql.Identifier(column.expression)
        )
        try:
            with self._source.transaction():
                _, found = self._source.execute(query).fetchone() or (0, [])
        except psycopg.Error as exc:
            if (exc.sqlstate or "")[:2] not in BAD_VALUES:
                raise
            states = self._singly(column, cells)
            for state in sorted(set(states) - {""}):
                of_it = [key for key, one in zip(keys, states, strict=True) if one == state]
                self._note((column.name, state, ""), of_it)
            left = [place for place, state in enumerate(states) if not state]
            self._try(column, [keys[place] for place in left], [cells[place] for place in left])
            return
        self._note((column.name, TOO_LONG, ""), [keys[number - 1] for number in found])

    def _singly(self, column: MappedColumn, cells: Sequence[str | None]) -> list[str]:
        """What the server says against each of the texts; nothing where it is a value."""
        program = sql.SQL(_PROGRAM).format(
            given=sql.Identifier(column.expression),
            texts=sql.Literal([*cells]),
            value=mapped.stored(column),
            bad=sql.Literal([*BAD_VALUES]),
            result=sql.Literal(_RESULT),
        )
        self._source.execute(sql.SQL("DO {}").format(sql.Literal(program.as_string(self._source))))
        (states,) = self._source.execute("SELECT current_setting(%s)", (_RESULT,)).fetchone() or (
            "",
        )
        return str(states).split(",")

    def _note(self, kind: _Kind, keys: Sequence[Key]) -> None:
        if keys:
            self.failing[kind] += len(keys)
            kept = self.keys.setdefault(kind, [])
            kept += keys[: self._examples - len(kept)]
