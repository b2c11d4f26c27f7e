"""Whatever a source does, a hook's columns are what its function says of the source's rows.

The oracle is PostgreSQL: what the function says in Python is written once more here in SQL. It runs
on the source when the batch's last transaction committed there, and judges what loading reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import sql

from cdc_migrator.apply.applier import Applier
from cdc_migrator.backfill.columns import Passage, passage
from cdc_migrator.backfill.reading import Job, hooked, query
from cdc_migrator.control.load import Chunk
from cdc_migrator.databases.postgres import names
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import StreamHalted
from cdc_migrator.hook.calling import BATCH
from cdc_migrator.model.mapping import Route, Wanted, WantedHook, called
from cdc_migrator.model.tables import TableName
from cdc_migrator.transform.compile import compile_routes
from tests.property.test_mapping_follows_source import (
    FILTERS,
    ITEM,
    KEYS,
    LOG,
    OTHER,
    SOURCE,
    TARGET,
    Step,
    rows,
    works,
)
from tests.support.recorded import PLACEHOLDER, RecordedPair, Recorder, batch, recorded_pair
from tests.support.row_hooks import FAILS

PERSON, PLACE, LINE = (TableName("crm", name) for name in ("person", "place", "line"))
MADE = """
DROP TABLE IF EXISTS crm.person, crm.place, crm.line;
CREATE TABLE crm.person (number bigint PRIMARY KEY, cents bigint, told text, size smallint,
    day date, share numeric(14,1), state crm.state, code char(4));
CREATE TABLE crm.place (id bigint PRIMARY KEY, code text);
CREATE TABLE crm.line (body text, loud text, level bigint);
"""
TOLD = WantedHook(
    "tests.support.row_hooks:told",
    reads=("code", "cents", "at", "ok", "body"),
    gives={
        "told": "text",
        "size": "int2",
        "day": "date",
        "share": "numeric",
        "state": "crm.state",
        "code": "char(4)",
    },
)
WANTED = Wanted(
    "shop.item",
    "crm.person",
    keep=("id",),
    rename={"id": "number"},
    set={"cents": "(price * 100)::bigint"},
    hook=TOLD,
)
BESIDE = Wanted("shop.item", "crm.place", keep=("id", "code"))
LINES = Wanted(
    "shop.log",
    "crm.line",
    keep=("body",),
    hook=WantedHook(
        "tests.support.row_hooks:line", ("what", "body"), {"loud": "text", "level": "int8"}
    ),
)
# The same in SQL, and what the target holds.
ORACLE = """
SELECT ROW(id, (price * 100)::bigint, reverse(code) || E'\\\\\\n\\t' || coalesce(nullif(body, ''),
    'none'), length(body)::int2, (at AT TIME ZONE 'UTC')::date,
    round((price * 100)::bigint / 8::numeric, 1), CASE WHEN ok THEN 'open' WHEN NOT ok THEN 'shut'
    ELSE 'unknown' END, left(code, 4)::char(4))::text FROM shop.item WHERE """
HELD = "SELECT ROW(number, cents, told, size, day, share, state, code)::text FROM crm.person"
LOUD = "SELECT ROW(body, upper(coalesce(body, '')), what::int8)::text FROM shop.log"

Routed = dict[TableName, dict[TableName, Route]]


@pytest.fixture(scope="module")
def pair() -> Iterator[RecordedPair]:
    with recorded_pair(SOURCE, TARGET, KEYS) as pair:
        pair.recorder.full = frozenset({ITEM, OTHER})
        pair.recorder.as_text = frozenset({"price"})
        pair.source.commit()
        yield pair


def load_hooked(source: psycopg.Connection, target: psycopg.Connection, way: Passage) -> None:
    """What a worker does with a table that is one chunk; blocks end anywhere."""
    job = Job(Chunk(way.source, 0, 0, 0, None, 0), way, None, 0)  # type: ignore[arg-type]
    assert not way.binary or way.route is None or way.route.hook is None
    into = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT {})").format(
        names.table(way.target),
        names.columns(way.columns),
        sql.SQL("binary" if way.binary else "text"),
    )
    with source.cursor().copy(query(job)) as out:
        data = b"".join(map(bytes, out))
    pieces = (data[start : start + 37] for start in range(0, len(data), 37))
    with target.cursor().copy(into) as copy:
        for item in hooked(job, ((0, piece) for piece in pieces)):
            assert isinstance(item, tuple)
            copy.write(item[1])


def _mapped(pair: RecordedPair, wanted: Sequence[Wanted]) -> Routed:
    """The routes as the product works them out, and their rows as it loads them."""
    pair.target.execute(MADE.encode())
    chosen = {one.table for one in wanted}
    with connect(pair.source_dsn, application_name="mapping") as source:
        tables = {table.name: table for table in read_tables(source)}
        of_them = [table for name, table in tables.items() if str(name) in chosen]
        found = compile_routes(source, pair.target, wanted, of_them)
        there = {table.name: table for table in read_tables(pair.target)}
        for route in (route for of in found.values() for route in of):
            way = passage(tables[route.source], there[route.target], route)
            load_hooked(source, pair.target, way)
    return {
        table: {called(route, route is of[0]): route for route in of} for table, of in found.items()
    }


def _applier(stack: ExitStack, pair: RecordedPair, routes: Routed) -> Applier:
    pair.target.execute(
        "UPDATE cdc_migrator.stream_progress SET next_offset = %s, commit_position = %s",
        (pair.recorder.offset, pair.recorder.lsn),
    )
    used = [table for table in pair.tables if table.name in routes]
    applier = stack.enter_context(Applier(pair.target_dsn, used, PLACEHOLDER, routes=routes))
    assert applier.start("test", stale_after=0.0) is not None
    return applier


@settings(
    max_examples=12,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(where=st.sampled_from(FILTERS), begun=works, work=works, cut=st.integers(1, 4))
def test_load_and_stream_give_what_the_function_says(
    pair: RecordedPair,
    where: str | None,
    begun: list[list[Step]],
    work: list[list[Step]],
    cut: int,
) -> None:
    """Of a table that is split, whatever its filter; rows change, move to other keys, and go."""
    recorder, source, target = pair.recorder, pair.source, pair.target
    oracle = ORACLE + (f"({where}\n)" if where else "true")
    source.execute("DELETE FROM shop.item; DELETE FROM shop.other")
    recorder.attempt(step for transaction in begun for step in transaction)
    recorder.commit()
    with ExitStack() as stack:
        hooked_one = Wanted(
            WANTED.table, WANTED.to, WANTED.keep, (), WANTED.rename, {}, WANTED.set, where, TOLD
        )
        routes = _mapped(pair, [hooked_one, BESIDE])
        assert rows(target, HELD) == rows(source, oracle)
        source.commit()
        applier = _applier(stack, pair, routes)
        waiting = []
        for place, transaction in enumerate(work):
            recorder.attempt(transaction)
            told = recorder.commit()
            told.changes = [one for one in told.changes if one.table in routes]
            waiting.append(told)
            if place % cut == 0 or transaction is work[-1]:
                applier.apply(batch(*waiting))
                waiting = []
                assert rows(target, HELD) == rows(source, oracle)
                source.commit()


def test_a_table_without_a_key_gives_and_loses_what_the_function_says(pair: RecordedPair) -> None:
    """A row that goes is found by all of its columns, the function's among them."""
    recorder: Recorder = pair.recorder
    pair.source.execute("TRUNCATE shop.log")
    for number in range(6):
        recorder.insert(LOG, what=number % 2, body=f"line\t{number % 3}")
    recorder.commit()
    with ExitStack() as stack:
        applier = _applier(stack, pair, _mapped(pair, [LINES]))
        recorder.insert(LOG, what=1, body=None)
        recorder.delete(LOG, "body = %s AND what = 1", "line\t1")
        recorder.update(LOG, "body = 'other'", "what = 0")
        applier.apply(batch(recorder.commit()))
        held = rows(pair.target, "SELECT ROW(body, loud, level)::text FROM crm.line")
        assert held == rows(pair.source, LOUD)
        assert len(held) == 6
        pair.source.commit()


def test_the_stream_halts_in_front_of_the_transaction_on_which_the_function_fails(
    pair: RecordedPair,
) -> None:
    """What came before it is applied; what is told has the place in the function, and no value."""
    recorder, source, target = pair.recorder, pair.source, pair.target
    source.execute("TRUNCATE shop.item")
    recorder.commit()
    with ExitStack() as stack:
        applier = _applier(stack, pair, _mapped(pair, [WANTED]))
        work = []
        for number, code in enumerate(("c1", FAILS, "c2")):
            recorder.insert(ITEM, id=number, code=code)
            work.append(recorder.commit())
        with pytest.raises(StreamHalted) as caught:
            applier.apply(batch(*work))
        said = str(caught.value)
        assert caught.value.code == "CDCM-MAPPING-HOOK-FAILED"
        assert f"transaction {work[1].xid}" in said
        assert "told fails: ValueError at row_hooks.py:" in said
        assert FAILS not in said
        assert rows(target, "SELECT number::text FROM crm.person") == ["0"]
        source.commit()


def test_more_rows_than_the_function_is_handed_at_once(pair: RecordedPair) -> None:
    """One transaction changes all of them."""
    recorder, source, target = pair.recorder, pair.source, pair.target
    source.execute("TRUNCATE shop.item")
    source.execute(
        "INSERT INTO shop.item (id, code, price, body) SELECT n, 'c' || n, n, 'b' "
        "FROM generate_series(1, %s) n",
        (BATCH + 100,),
    )
    recorder.commit()
    with ExitStack() as stack:
        applier = _applier(stack, pair, _mapped(pair, [WANTED]))
        assert rows(target, HELD) == rows(source, ORACLE + "true")
        recorder.update(ITEM, "code = 'd' || code, ok = mod(id, 2) = 0", "true")
        applier.apply(batch(recorder.commit()))
        assert rows(target, HELD) == rows(source, ORACLE + "true")
        source.commit()
