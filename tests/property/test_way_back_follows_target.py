"""Whatever happens on the target, what comes back is what it says, and the rest stays as it was.

The oracle is SQL over both sides, written by hand. What the target does not carry is followed by
marks: a column of the target that was computed of it on the way there and goes wherever its row
goes, so a value that came to another row, or was lost, does not fit its mark.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cdc_migrator.apply.applier import Applier
from cdc_migrator.backfill.columns import passage
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.mapping import Route, Wanted, called
from cdc_migrator.model.tables import TableName
from cdc_migrator.service.returning import comes
from cdc_migrator.transform.compile import compile_routes
from tests.property.test_mapping_follows_source import load_rows
from tests.support.recorded import PLACEHOLDER, RecordedPair, Recorder, batch, recorded_pair

PERSON, ADDRESS, SALE = (TableName("shop", name) for name in ("person", "address", "sale"))
KEYS = {PERSON: ("id",), ADDRESS: ("person",), SALE: ("region", "id")}
# The target, whose changes are recorded.
TARGET = """
CREATE SCHEMA shop;
CREATE TYPE shop.state AS ENUM ('on', 'off', 'unknown');
CREATE TABLE shop.person (id bigint PRIMARY KEY, email text UNIQUE NOT NULL, full_name text,
    score bigint, state shop.state, hint text);
CREATE TABLE shop.address (person bigint PRIMARY KEY, street text, city text);
CREATE TABLE shop.sale (region text, id int, cents bigint NOT NULL, note text, mark text,
    PRIMARY KEY (region, id));
ALTER TABLE shop.sale REPLICA IDENTITY FULL;
ALTER TABLE shop.address REPLICA IDENTITY FULL;
"""
SOURCE = """
CREATE SCHEMA mono;
CREATE TABLE mono.users (id int PRIMARY KEY, phone text, email varchar(60) UNIQUE NOT NULL,
    name text, street text, score numeric(8,2), city text, gone boolean NOT NULL,
    status text NOT NULL);
ALTER TABLE mono.users REPLICA IDENTITY FULL;
CREATE TABLE mono.eu (id int PRIMARY KEY, total numeric(10,2) NOT NULL, inner_note text DEFAULT 'i',
    note text, computed int GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE mono.us (LIKE mono.eu INCLUDING ALL);
"""
ROWS = """
INSERT INTO mono.users SELECT n, 'p' || n, 'e' || n, 'name ' || n,
    CASE WHEN n % 3 > 0 THEN 'a street that is long ' || n END, n + 0.35,
    CASE WHEN n % 4 > 0 THEN 'city' END, n % 5 = 0, (ARRAY['on', 'odd', 'off'])[n % 3 + 1]
    FROM generate_series(1, 10) n;
INSERT INTO mono.eu SELECT n, n * 1.25, 'eu' || n, 'a note of the order ' || n
    FROM generate_series(1, 5) n;
INSERT INTO mono.us SELECT n, n * 2.5, 'us' || n, NULL FROM generate_series(3, 7) n;
"""
# The same on the target.
LOADED = """
INSERT INTO shop.person SELECT id, email, name, score, CASE WHEN status IN ('on', 'off')
    THEN status ELSE 'unknown' END, right(phone, 9) FROM mono.users WHERE NOT gone;
INSERT INTO shop.address SELECT id, street, city FROM mono.users WHERE NOT gone;
INSERT INTO shop.sale SELECT 'eu', id, total * 100, note, inner_note FROM mono.eu
    UNION ALL SELECT 'us', id, total * 100, note, inner_note FROM mono.us;
"""
WANTED = [
    Wanted(
        "mono.users",
        "shop.person",
        keep=("id", "email", "name", "score"),
        rename={"name": "full_name"},
        cast={"score": "bigint"},
        set={
            "hint": "right(phone, 9)",
            "state": "CASE WHEN status IN ('on', 'off') THEN status ELSE 'unknown' END",
        },
        where="NOT gone",
        back={"gone": "false", "status": "state"},
    ),
    Wanted(
        "mono.users",
        "shop.address",
        keep=("id", "street", "city"),
        rename={"id": "person"},
        where="NOT gone",
    ),
    *(
        Wanted(
            f"mono.{region}",
            "shop.sale",
            keep=("id", "note"),
            set={
                "region": f"'{region}'",
                "cents": "(total * 100)::bigint",
                "mark": "inner_note || ''",
            },
            back={"total": "cents / 100.0"},
        )
        for region in ("eu", "us")
    ),
]
# Both must be empty: what the target has and the source does not say, and the other way round.
PEOPLE_THERE = """
SELECT p.id, p.email, p.full_name, p.score, p.state::text, right(p.hint, 9), a.street, a.city
FROM shop.person p LEFT JOIN shop.address a ON a.person = p.id
"""
PEOPLE_HERE = """
SELECT id, email, name, score::bigint, CASE WHEN status IN ('on', 'off') THEN status
    ELSE 'unknown' END, phone, street, city FROM mono.users WHERE NOT gone
"""
SALES_THERE = """
SELECT region, id, cents, note, coalesce(mark, 'i'), id * 2 FROM shop.sale
WHERE region IN ('eu', 'us')
"""
SALES_HERE = """
SELECT 'eu', id, (total * 100)::bigint, note, inner_note, computed FROM mono.eu
UNION ALL SELECT 'us', id, (total * 100)::bigint, note, inner_note, computed FROM mono.us
"""
# Who was left out on the way there, and whom nobody has made anew.
GONE = "SELECT id, phone, email, name, street, score, city, status FROM mono.users WHERE gone"

Step = Callable[[Recorder], None]
ids = st.integers(1, 8)
texts = st.sampled_from([None, "x", "a text that is long enough", "another that is long enough"])
numbers = st.integers(1, 9)
regions = st.sampled_from(["eu", "us", "zz"])


def _step(function: Callable[..., None], *given: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    return st.tuples(*given).map(lambda values: lambda r: function(r, *values))


def _sign_up(r: Recorder, i: int, name: str | None, n: int) -> None:
    state = ("on", "off", "unknown")[n % 3]
    r.insert(PERSON, id=i, email=f"e{i}n{n}", full_name=name, score=n, state=state)


def _lives(r: Recorder, i: int, street: str | None, city: str | None) -> None:
    there = r.conn.execute("SELECT FROM shop.person WHERE id = %s", (i,)).fetchone()
    if there is not None:
        r.insert(ADDRESS, person=i, street=street, city=city)


def _leave(r: Recorder, i: int) -> None:
    r.delete(ADDRESS, "person = %s", i)
    r.delete(PERSON, "id = %s", i)


def _renumber(r: Recorder, i: int, j: int) -> None:
    r.update(PERSON, "id = %s", "id = %s", j, i)
    r.update(ADDRESS, "person = %s", "person = %s", j, i)


def _swap(r: Recorder, i: int, j: int) -> None:
    """Two take each other's address for mail, by way of a third."""
    found = r.conn.execute(
        "SELECT id, email FROM shop.person WHERE id IN (%s, %s) ORDER BY id", (i, j)
    ).fetchall()
    if len(found) == 2:
        (one, of_one), (two, of_two) = found
        r.update(PERSON, "email = %s", "id = %s", "nobody", one)
        r.update(PERSON, "email = %s", "id = %s", of_one, two)
        r.update(PERSON, "email = %s", "id = %s", of_two, one)


def _move_up(r: Recorder) -> None:
    r.update(PERSON, "id = id + 20", "id < 10")
    r.update(ADDRESS, "person = person + 20", "person < 10")


def _move_down(r: Recorder) -> None:
    r.update(PERSON, "id = id - 20", "id > 20")
    r.update(ADDRESS, "person = person - 20", "person > 20")


steps: st.SearchStrategy[Step] = st.one_of(
    _step(_sign_up, ids, texts, numbers),
    _step(_leave, ids),
    _step(_lives, ids, texts, texts),
    _step(_renumber, ids, ids),
    _step(_swap, ids, ids),
    st.just(_move_up),
    st.just(_move_down),
    _step(lambda r, i: r.delete(ADDRESS, "person = %s", i), ids),
    _step(lambda r, i, t: r.update(ADDRESS, "street = %s", "person = %s", t, i), ids, texts),
    _step(lambda r, i, t: r.update(PERSON, "full_name = %s", "id = %s", t, i), ids, texts),
    _step(lambda r, i, n: r.update(PERSON, "score = %s", "id = %s", n, i), ids, numbers),
    _step(lambda r, i: r.update(PERSON, "state = 'off'", "id = %s", i), ids),
    _step(
        lambda r, w, i, n, t: r.insert(SALE, region=w, id=i, cents=n * 10, note=t),
        regions, ids, numbers, texts,
    ),
    _step(lambda r, w, i: r.delete(SALE, "(region, id) = (%s, %s)", w, i), regions, ids),
    _step(
        lambda r, w, i, n: r.update(SALE, "cents = %s", "(region, id) = (%s, %s)", n, w, i),
        regions, ids, numbers,
    ),
    _step(
        lambda r, w, i, t: r.update(SALE, "note = %s", "(region, id) = (%s, %s)", t, w, i),
        regions, ids, texts,
    ),
    _step(
        lambda r, w, i, v: r.update(
            SALE, "region = %s, mark = NULL", "(region, id) = (%s, %s) AND region <> %s", v, w, i, v
        ),
        regions, ids, regions,
    ),
    _step(
        lambda r, w, i, j: r.update(SALE, "id = %s", "(region, id) = (%s, %s)", j, w, i),
        regions, ids, ids,
    ),
    st.just(lambda r: r.truncate(SALE)),
    st.just(lambda r: r.truncate(PERSON, ADDRESS)),
)  # fmt: skip
works = st.lists(st.lists(steps, min_size=1, max_size=6), min_size=2, max_size=8)


Routed = dict[TableName, dict[TableName, Route]]


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[RecordedPair, Routed]]:
    """Both databases, and the routes as the product works them out."""
    with recorded_pair(TARGET, SOURCE, KEYS) as pair:
        pair.recorder.full = frozenset({SALE, ADDRESS})
        pair.source.commit()
        yield pair, _back(pair)


def rows(conn: psycopg.Connection, statement: str) -> list[tuple[Any, ...]]:
    return sorted(conn.execute(statement.encode()).fetchall(), key=repr)


def _back(pair: RecordedPair) -> Routed:
    with (
        connect(pair.target_dsn, application_name="forth") as source,
        connect(pair.source_dsn, application_name="forth") as target,
    ):
        source.execute(ROWS)
        tables = {table.name: table for table in read_tables(source, include=["mono.*"])}
        there = {table.name: table for table in read_tables(target)}
        forth = compile_routes(source, target, WANTED, list(tables.values()))
        ways: list[Any] = []
        for route in (route for of in forth.values() for route in of):
            load_rows(source, target, passage(tables[route.source], there[route.target], route))
            ways.append(SimpleNamespace(route=route, target=route.target))
        found = comes(source, target, ways, WANTED).routes
    return {
        table: {called(route, route is of[0]): route for route in of} for table, of in found.items()
    }


def _begin(pair: RecordedPair) -> None:
    """The rows that are there when the target is opened."""
    pair.target.execute(f"TRUNCATE mono.users, mono.eu, mono.us; {ROWS}".encode())
    pair.source.execute("TRUNCATE shop.person, shop.address, shop.sale")
    for statement in LOADED.split(";")[:-1]:
        into, query = statement.split(" SELECT ", 1)
        out = pair.target.execute(f"SELECT {query}".encode()).fetchall()
        with pair.source.cursor() as cursor:
            marks = ", ".join(["%s"] * len(out[0]))
            cursor.executemany(f"{into} VALUES ({marks})".encode(), out)
    pair.source.commit()


@settings(
    max_examples=20,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(work=works, cut=st.integers(1, 4))
def test_what_comes_back_is_what_the_target_has(
    made: tuple[RecordedPair, Routed], work: list[list[Step]], cut: int
) -> None:
    """In batches of any number of transactions: renamed, cast, split, merged and filtered."""
    _come_back(made, work, cut)


def test_who_moves_to_a_number_that_was_left_out_has_no_address_of_another(
    made: tuple[RecordedPair, Routed],
) -> None:
    """The fifth was left out on the way there; what was its address is not the newcomer's."""
    work: list[list[Step]] = [
        [lambda r: _sign_up(r, 5, "x", 2), lambda r: _renumber(r, 5, 25)],
        [lambda r: _renumber(r, 25, 5)],
    ]
    _come_back(made, work, 1)


def _come_back(made: tuple[RecordedPair, Routed], work: list[list[Step]], cut: int) -> None:
    pair, routes = made
    recorder, there, here = pair.recorder, pair.source, pair.target
    _begin(pair)
    left, named = rows(here, GONE), set[int]()
    here.execute(
        "UPDATE cdc_migrator.stream_progress SET next_offset = %s, commit_position = %s",
        (recorder.offset, recorder.lsn),
    )
    with ExitStack() as stack:
        applier = stack.enter_context(
            Applier(pair.target_dsn, pair.tables, PLACEHOLDER, routes=routes)
        )
        assert applier.start("test", stale_after=0.0) is not None
        waiting = []
        for place, transaction in enumerate(work):
            recorder.attempt(transaction)
            waiting.append(recorder.commit())
            changes = waiting[-1].changes
            named |= {json.loads(c.key)["id"] for c in changes if c.table == PERSON and c.key}
            if place % cut == 0 or transaction is work[-1]:
                applier.apply(batch(*waiting))
                waiting = []
                assert rows(here, PEOPLE_HERE) == rows(there, PEOPLE_THERE)
                assert rows(here, SALES_HERE) == rows(there, SALES_THERE)
                still = rows(here, GONE)
                assert set(still) <= set(left)
                assert {row[0] for row in left} - {row[0] for row in still} <= named
                there.commit()
