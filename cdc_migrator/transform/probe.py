"""Some rows of the source, put through the expressions on both servers: they must give the same.

What a catalog cannot tell shows here: another collation's order, another version of a function. The
rows go from one server to the other as COPY's text and are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import mapped, names
from cdc_migrator.databases.postgres.coded import coded, describe, speaking
from cdc_migrator.databases.postgres.sqlstate import Disposition, disposition
from cdc_migrator.model.mapping import MappedColumn, Route
from cdc_migrator.model.tables import Column, Table
from cdc_migrator.transform.bench import has_type
from cdc_migrator.transform.entries import Place
from cdc_migrator.transform.faults import Fault
from cdc_migrator.transform.keys import Way

ROWS = 500
# A table up to this size is looked at whole; of others so many blocks are, on the average.
_WHOLE_BLOCKS, _BLOCKS = 1000, 40
_SIZE = "SELECT pg_relation_size(to_regclass(%s)) / current_setting('block_size')::int8"
# Larger values are left out: they say nothing more, and would have to be held here.
_MOST_BYTES = 8192
# A function, a type or a schema that the target gets later.
_TO_COME = frozenset({"42883", "42704", "3F000"})


class _Failing(Exception):
    """Rows on which an expression fails on one of the servers."""

    def __init__(self, side: str, exc: psycopg.Error) -> None:
        super().__init__(describe(exc))
        self.side = side
        self.sqlstate = exc.sqlstate


def unlike(
    source: psycopg.Connection,
    target: psycopg.Connection,
    ways: Sequence[Way],
    place: Place,
    *,
    foreseen: bool,
) -> list[Fault]:
    """What gives something else on the target than on the source, or fails.

    Raises:
        MigratorError: a database failed.
    """
    faults: list[Fault] = []
    for one in ways:
        if asked(one.route) or one.route.where is not None:
            faults += _unlike(source, target, one, place, foreseen)
    return faults


def asked(route: Route) -> list[MappedColumn]:
    """The columns for which SQL computes something."""
    return [one for one in route.made if one.of is None or one.cast]


def _unlike(
    source: psycopg.Connection, target: psycopg.Connection, way: Way, place: Place, foreseen: bool
) -> list[Fault]:
    table, route, number = way.entry.table, way.route, way.entry.number
    used = route.reads
    columns = [one for one in table.columns if one.name in used]
    if foreseen and not all(has_type(target, one.type_text) for one in columns):
        return []
    computed = asked(route)
    try:
        differing = _compare(source, target, way, columns, computed)
    except _Failing as failing:
        if foreseen and failing.sqlstate in _TO_COME:
            return []
        return [_failing(source, target, way, place, failing)]
    faults = []
    for at, differs in enumerate(differing):
        if differs:
            what = "the filter" if at == 0 else f"column {computed[at - 1].name}"
            field = "where" if at == 0 else field_of(way, computed[at - 1])
            faults.append(
                Fault(
                    "CDCM-MAPPING-UNLIKE",
                    place(number, field),
                    f"{table.name}, {what}: the two servers give different results for the same "
                    "rows",
                    'Look for what depends on the server: collations (COLLATE "C" does not), '
                    "functions of your own or of another version, the database's encoding.",
                )
            )
    return faults


def _failing(
    source: psycopg.Connection,
    target: psycopg.Connection,
    way: Way,
    place: Place,
    failing: _Failing,
) -> Fault:
    """Which column it is that fails: each is tried alone."""
    table = way.entry.table
    what, field = "the filter", "where"
    for one in asked(way.route):
        used = {*way.route.where_uses, *one.uses}
        try:
            _compare(source, target, way, [c for c in table.columns if c.name in used], [one])
        except _Failing as alone:
            failing, what, field = alone, f"column {one.name}", field_of(way, one)
            break
    return Fault(
        "CDCM-MAPPING-EXPRESSION",
        place(way.entry.number, field),
        f"{table.name}, {what} fails on rows of the source: the {failing.side} says: {failing}",
        f"`cdc-migrator transform check {table.name}` counts such rows; let the expression take "
        "care of them.",
    )


def field_of(way: Way, column: MappedColumn) -> str:
    """Where in its entry a column stands."""
    wanted = way.entry.wanted
    for name, of in (("set", wanted.set), ("cast", wanted.cast)):
        if column.name in of:
            return f"{name}.{column.name}"
    return f"rename.{column.of}" if column.of in wanted.rename else "table"


def _compare(
    source: psycopg.Connection,
    target: psycopg.Connection,
    way: Way,
    columns: Sequence[Column],
    computed: Sequence[MappedColumn],
) -> list[bool]:
    """Of the filter, then of each column: whether they differ on some row.

    Raises:
        _Failing: an expression fails. MigratorError: a database failed.
    """
    table, route = way.entry.table, way.route
    results = [f"cdcm {number}" for number in range(len(computed) + 1)]
    values = _values(route, computed)
    query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(
        sql.SQL(", ").join([*(sql.Identifier(one.name) for one in columns), *values]),
        sample(table, columns, size(source, table)),
    )
    shape = sql.SQL(", ").join(
        [
            *(
                sql.SQL("{} {}").format(sql.Identifier(one.name), names.type_name(one.type_text))
                for one in columns
            ),
            *(sql.SQL("{} text").format(sql.Identifier(name)) for name in results),
        ]
    )
    differ = sql.SQL("SELECT {} FROM pg_temp.cdcm_probe").format(
        sql.SQL(", ").join(
            sql.SQL('coalesce(bool_or({} COLLATE "C" IS DISTINCT FROM {}), false)').format(
                value, sql.Identifier(name)
            )
            for value, name in zip(values, results, strict=True)
        )
    )
    with target.transaction(force_rollback=True):
        with speaking("target", "making a table for sample rows"):
            target.execute("SET TRANSACTION READ WRITE")
            target.execute(sql.SQL("CREATE TEMP TABLE cdcm_probe ({})").format(shape))
        try:
            with source.cursor() as here, here.copy(query) as out:
                rows = [bytes(data) for data in out]
        except psycopg.Error as exc:
            raise _of(exc, "source", f"reading rows of {table.name}") from exc
        try:
            with (
                target.cursor() as there,
                there.copy("COPY pg_temp.cdcm_probe FROM STDIN") as into,
            ):
                for data in rows:
                    into.write(data)
            row = target.execute(differ, prepare=False).fetchone()
        except psycopg.Error as exc:
            raise _of(exc, "target", f"putting rows of {table.name} through its mapping") from exc
    assert row is not None
    return [bool(one) for one in row]


def _values(route: Route, computed: Sequence[MappedColumn]) -> list[sql.Composable]:
    """The filter and each value, as texts; only of rows that pass is anything computed."""
    passing = mapped.passing(route)
    return [
        sql.SQL("({})::text").format(passing),
        *(
            sql.SQL("CASE WHEN {} THEN ROW({})::text END").format(passing, mapped.stored(one))
            for one in computed
        ),
    ]


def size(source: psycopg.Connection, table: Table) -> int:
    """How many blocks a table has."""
    with speaking("source", f"looking at {table.name}"):
        row = source.execute(_SIZE, (names.table(table.name).as_string(),)).fetchone()
    return row[0] if row is not None else 0


def sample(table: Table, columns: Sequence[Column], blocks: int) -> sql.Composed:
    """Up to `ROWS` rows from all over a table of so many blocks, as a row source without a name.

    Rows with very large values are left out. The same rows each time, as long as nobody writes.
    """
    scattered: sql.Composable = sql.SQL("")
    if blocks > _WHOLE_BLOCKS:
        share = sql.Literal(round(100 * _BLOCKS / blocks, 6))
        scattered = sql.SQL("TABLESAMPLE SYSTEM ({}) REPEATABLE (1)").format(share)
    small = [
        sql.SQL("coalesce(pg_column_size({}), 0) <= {}").format(
            sql.Identifier(one.name), sql.Literal(_MOST_BYTES)
        )
        for one in columns
    ]
    return sql.SQL(
        "(SELECT * FROM ONLY {} {} WHERE {} ORDER BY md5(ctid::text) LIMIT {}) AS cdcm_sample"
    ).format(
        names.table(table.name),
        scattered,
        sql.SQL(" AND ").join([sql.SQL("true"), *small]),
        sql.Literal(ROWS),
    )


def _of(exc: psycopg.Error, side: str, doing: str) -> Exception:
    """An expression that fails, or a server that does."""
    state = exc.sqlstate or ""
    if disposition(exc) is Disposition.BAD_ROW or state[:2] in ("38", "39", "P0"):
        return _Failing(side, exc)
    return _Failing(side, exc) if state in _TO_COME else coded(exc, side, doing)
