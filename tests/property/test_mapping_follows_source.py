"""Whatever a source does, its rows in their new shape are those that SQL makes of the source.

The oracle is PostgreSQL: what a table is to become is written once more here, as a plain query, and
runs on the source when the batch's last transaction committed there. The same query judges what
loading reads. Which expressions, filter and shape a table gets is drawn from a corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import sql

from cdc_migrator.apply.applier import Applier
from cdc_migrator.backfill.columns import Passage, passage
from cdc_migrator.backfill.reading import Job, query
from cdc_migrator.control.load import Chunk
from cdc_migrator.databases.postgres import names
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.mapping import Route, Wanted, called
from cdc_migrator.model.tables import TableName
from cdc_migrator.transform.compile import compile_routes
from tests.support.recorded import PLACEHOLDER, RecordedPair, Recorder, batch, recorded_pair

ITEM, OTHER, LOG = (TableName("shop", name) for name in ("item", "other", "log"))
KEYS = {ITEM: ("id",), OTHER: ("id",)}
COLUMNS = (
    "id bigint PRIMARY KEY, code text, n int, price numeric(10,2), at timestamptz, "
    "ok boolean, kind shop.kind, body text"
)
SOURCE = f"""
CREATE SCHEMA shop;
CREATE TYPE shop.kind AS ENUM ('old', 'new');
CREATE TABLE shop.item ({COLUMNS});
CREATE TABLE shop.other ({COLUMNS});
CREATE TABLE shop.log (what int, body text);
ALTER TABLE shop.item REPLICA IDENTITY FULL;
ALTER TABLE shop.other REPLICA IDENTITY FULL;
ALTER TABLE shop.log REPLICA IDENTITY FULL;
"""
TARGET = """
CREATE SCHEMA shop; CREATE SCHEMA crm;
CREATE TYPE shop.kind AS ENUM ('old', 'new');
CREATE TYPE crm.state AS ENUM ('open', 'shut', 'unknown');
"""
# What a column of the target is made of, and its type there.
CORPUS: tuple[tuple[str, str], ...] = (
    ("upper(code)", "text"),
    ("code || '/' || id::text", "text"),
    ("coalesce(code, 'none')", "varchar(40)"),
    ("md5(code)", "text"),
    ("left(md5(code || body), 8)", "text"),
    ("n * 2 + 1", "bigint"),
    ("n / 3.0", "numeric(8,3)"),
    ("price", "numeric(12,1)"),
    ("price::float8", "double precision"),
    ("round(price)::int", "int"),
    ("(at AT TIME ZONE 'UTC')::date", "date"),
    ("date_part('hour', at AT TIME ZONE 'UTC')", "double precision"),
    ("ok IS NOT TRUE", "boolean"),
    ("CASE WHEN ok THEN 'open' WHEN NOT ok THEN 'shut' ELSE 'unknown' END", "crm.state"),
    ("kind", "text"),
    ("kind = 'new'", "boolean"),
    ("length(body)", "int"),
    ("body", "text"),
    ("string_to_array(body, ' ')", "text[]"),
    ("('{\"n\": ' || coalesce(n, 0)::text || '}')::jsonb", "jsonb"),
    ("ARRAY[n, id::int]", "int[]"),
    ("int4range(least(n, 0), 10)", "int4range"),
    ("'constant -- with a dash'", "text"),
    ("NULL::text", "text"),
    ("nullif(n, 3)", "smallint"),
)
FILTERS: tuple[str | None, ...] = (
    None,
    "ok",
    "n > 2",
    "code IS NOT NULL AND code <> ''",
    "kind = 'new' OR body LIKE 'long%'",
    "NOT coalesce(ok, false) -- closed ones",
    "id % 2 = 0",
)


@dataclass(frozen=True)
class Shape:
    """One table of the target: its columns beside the key, with an expression each."""

    source: TableName
    target: TableName
    columns: tuple[int, ...]
    where: str | None
    shard: str | None = None

    @property
    def wanted(self) -> Wanted:
        made = {f"x{place}": CORPUS[place][0] for place in self.columns}
        if self.shard is not None:
            made["shard"] = f"'{self.shard}'"
        return Wanted(
            table=str(self.source),
            to=str(self.target),
            keep=("id",),
            rename={"id": "number"},
            set=made,
            where=self.where,
        )

    @property
    def oracle(self) -> str:
        """The same as a query of the source; types that only the target has as their texts."""
        values = [f"'{self.shard}'"] if self.shard is not None else []
        for place in self.columns:
            expression, to = CORPUS[place]
            values.append(f"({expression})::{'text' if to.startswith('crm.') else to}")
        where = f"({self.where}\n)" if self.where else "true"
        return f"SELECT ROW({', '.join(['id', *values])})::text FROM {self.source} WHERE {where}"

    @property
    def names(self) -> list[str]:
        shard = ["shard"] if self.shard is not None else []
        return ["number", *shard, *(f"x{place}" for place in self.columns)]

    def made(self) -> str:
        """The target's table; a shard's rows are told apart by the key."""
        key = "number bigint" + (", shard text" if self.shard is not None else "")
        rest = "".join(f", x{place} {CORPUS[place][1]}" for place in self.columns)
        named = "number, shard" if self.shard is not None else "number"
        return f"CREATE TABLE {self.target} ({key}{rest}, PRIMARY KEY ({named}))"


columns = st.sets(st.integers(0, len(CORPUS) - 1), min_size=1, max_size=6).map(
    lambda picked: tuple(sorted(picked))
)
wheres = st.sampled_from(FILTERS)


def _split(first: Any, second: Any) -> list[Shape]:
    return [
        Shape(ITEM, TableName("crm", "person"), *first),
        Shape(ITEM, TableName("crm", "place"), *second),
    ]


def _merged(picked: tuple[int, ...], one: str | None, other: str | None) -> list[Shape]:
    both = TableName("crm", "both")
    return [Shape(ITEM, both, picked, one, "eu"), Shape(OTHER, both, picked, other, "us")]


shapes: st.SearchStrategy[list[Shape]] = st.one_of(
    st.builds(lambda c, w: [Shape(ITEM, TableName("crm", "only"), c, w)], columns, wheres),
    st.builds(_split, st.tuples(columns, wheres), st.tuples(columns, wheres)),
    st.builds(_merged, columns, wheres, wheres),
)

ids = st.integers(1, 6)
codes = st.sampled_from([None, "", "c1", "tab\there", "Ünïcode ß"])
numbers = st.sampled_from([None, -1, 0, 3, 7])
prices = st.sampled_from([None, "0.05", "12.35", "-7.25", "99999999.99"])
times = st.sampled_from([None, "2024-02-29 23:30:00+00", "1999-12-31 00:00:00.123456+05"])
flags = st.sampled_from([None, True, False])
kinds = st.sampled_from([None, "old", "new"])
bodies = st.sampled_from([None, "", "short", "long enough to be out of line", "another long text"])
tables = st.sampled_from([ITEM, OTHER])
Step = Callable[[Recorder], None]


def _step(function: Callable[..., None], *given: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    return st.tuples(*given).map(lambda values: lambda r: function(r, *values))


def _insert(r: Recorder, t: TableName, *values: Any) -> None:
    named = ("id", "code", "n", "price", "at", "ok", "kind", "body")
    r.insert(t, **dict(zip(named, values, strict=True)))


steps: st.SearchStrategy[Step] = st.one_of(
    _step(_insert, tables, ids, codes, numbers, prices, times, flags, kinds, bodies),
    _step(lambda r, t, i, n: r.update(t, "n = %s", "id = %s", n, i), tables, ids, numbers),
    _step(lambda r, t, i, k: r.update(t, "ok = %s", "id = %s", k, i), tables, ids, flags),
    _step(lambda r, t, i, b: r.update(t, "body = %s", "id = %s", b, i), tables, ids, bodies),
    _step(
        lambda r, t, i, c, k: r.update(t, "code = %s, kind = %s", "id = %s", c, k, i),
        tables,
        ids,
        codes,
        kinds,
    ),
    _step(lambda r, t, i, j: r.update(t, "id = %s", "id = %s", j, i), tables, ids, ids),
    _step(lambda r, t, i: r.delete(t, "id = %s", i), tables, ids),
    _step(lambda r, t: r.update(t, "id = id + 10, ok = NOT ok", "id < 10"), tables),
    _step(lambda r, t: r.update(t, "id = id - 10", "id > 10"), tables),
    st.sampled_from([(ITEM,), (OTHER,), (ITEM, OTHER)]).map(lambda t: lambda r: r.truncate(*t)),
)
works = st.lists(st.lists(steps, min_size=1, max_size=6), min_size=2, max_size=7)


@pytest.fixture(scope="module")
def pair() -> Iterator[RecordedPair]:
    with recorded_pair(SOURCE, TARGET, KEYS) as pair:
        pair.recorder.full = frozenset({ITEM, OTHER})
        pair.recorder.as_text = frozenset({"price"})
        pair.source.commit()
        yield pair


def rows(conn: psycopg.Connection, statement: str) -> list[str]:
    return sorted(row[0] for row in conn.execute(statement.encode()))


def _held(target: psycopg.Connection, shape: Shape) -> list[str]:
    """The target's rows that are this shape's, as the oracle writes them."""
    where = f" WHERE shard = '{shape.shard}'" if shape.shard is not None else ""
    return rows(target, f"SELECT ROW({', '.join(shape.names)})::text FROM {shape.target}{where}")


Routed = dict[TableName, dict[TableName, Route]]


def _mapped(pair: RecordedPair, wanted: Sequence[Shape]) -> Routed:
    """The routes as the product works them out, and their rows as it loads them."""
    pair.target.execute("DROP TABLE IF EXISTS crm.only, crm.person, crm.place, crm.both")
    for statement in dict.fromkeys(shape.made() for shape in wanted):
        pair.target.execute(statement.encode())
    chosen = {shape.source for shape in wanted}
    with connect(pair.source_dsn, application_name="mapping") as source:
        tables = {table.name: table for table in read_tables(source)}
        of_them = [table for name, table in tables.items() if name in chosen]
        found = compile_routes(source, pair.target, [one.wanted for one in wanted], of_them)
        there = {table.name: table for table in read_tables(pair.target)}
        for route in (route for of in found.values() for route in of):
            load_rows(
                source, pair.target, passage(tables[route.source], there[route.target], route)
            )
    return {
        table: {called(route, route is of[0]): route for route in of} for table, of in found.items()
    }


def load_rows(source: psycopg.Connection, target: psycopg.Connection, way: Passage) -> None:
    """What a worker does with a table that is one chunk."""
    snapshot: Any = None
    statement = query(Job(Chunk(way.source, 0, 0, 0, None, 0), way, snapshot, 0))
    into = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT {})").format(
        names.table(way.target),
        names.columns(way.columns),
        sql.SQL("binary" if way.binary else "text"),
    )
    with source.cursor().copy(statement) as out, target.cursor().copy(into) as copy:
        for block in out:
            copy.write(block)


@settings(
    max_examples=25,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(wanted=shapes, begun=works, work=works, cut=st.integers(1, 4))
def test_load_and_stream_give_what_the_mapping_says(
    pair: RecordedPair,
    wanted: list[Shape],
    begun: list[list[Step]],
    work: list[list[Step]],
    cut: int,
) -> None:
    """Rows that were there are loaded, what happens then is applied, as the oracle has both."""
    recorder, source, target = pair.recorder, pair.source, pair.target
    source.execute("DELETE FROM shop.item; DELETE FROM shop.other")
    recorder.attempt(step for transaction in begun for step in transaction)
    recorder.commit()
    routes = _mapped(pair, wanted)
    for shape in wanted:
        assert _held(target, shape) == rows(source, shape.oracle)
    source.commit()
    target.execute(
        "UPDATE cdc_migrator.stream_progress SET next_offset = %s, commit_position = %s",
        (recorder.offset, recorder.lsn),
    )
    used = [table for table in pair.tables if table.name in routes]
    with ExitStack() as stack:
        applier = stack.enter_context(Applier(pair.target_dsn, used, PLACEHOLDER, routes=routes))
        assert applier.start("test", stale_after=0.0) is not None
        waiting = []
        for place, transaction in enumerate(work):
            recorder.attempt(transaction)
            given = recorder.commit()
            given.changes = [one for one in given.changes if one.table in routes]
            waiting.append(given)
            if place % cut == 0 or transaction is work[-1]:
                applier.apply(batch(*waiting))
                waiting = []
                for shape in wanted:
                    assert _held(target, shape) == rows(source, shape.oracle)
                source.commit()
