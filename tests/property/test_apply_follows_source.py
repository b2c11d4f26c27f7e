"""Whatever a source does, in whatever batches it is applied, the target becomes the source.

The oracle is PostgreSQL itself: the statements run on real tables, and after each batch the
target is compared with what those tables held when the batch's last transaction committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc_migrator.apply.applier import Applier
from cdc_migrator.model.changes import Transaction
from cdc_migrator.model.tables import TableName
from tests.support.recorded import PLACEHOLDER, Recorder, batch, recorded_pair

ITEM, PAIR, LOG, SERIAL, ONLY = (
    TableName("shop", name) for name in ("item", "pair", "log", "serial", "only")
)
KEYS = {ITEM: ("id",), PAIR: ("a", "b"), SERIAL: ("id",), ONLY: ("id",)}
TABLES = (ITEM, PAIR, LOG, SERIAL, ONLY)

SOURCE = """
CREATE SCHEMA shop;
CREATE TABLE shop.item (id bigint PRIMARY KEY, code text UNIQUE, slot int UNIQUE, body text,
    note text, EXCLUDE USING btree (code WITH =));
CREATE TABLE shop.pair (a int, b text, n int, body text, PRIMARY KEY (b, a));
CREATE TABLE shop.log (what int, body text);
ALTER TABLE shop.log REPLICA IDENTITY FULL;
CREATE TABLE shop.serial (number bigint GENERATED ALWAYS AS IDENTITY,
    id int PRIMARY KEY, body text, computed int GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE shop.only (id int PRIMARY KEY);
"""
# The target's key of one table cannot arbitrate, as where somebody made it deferrable there; a
# table that is not part of the migration refers to another.
TARGET = SOURCE.replace("PRIMARY KEY (b, a))", "PRIMARY KEY (b, a) DEFERRABLE)") + (
    "CREATE TABLE public.outside (id int REFERENCES shop.only);"
)

Contents = dict[TableName, list[str]]


def contents(conn: psycopg.Connection) -> Contents:
    """Every row of every table as text, sorted."""
    found = {}
    for table in TABLES:
        rows = conn.execute(f"SELECT t::text FROM {table} AS t").fetchall()
        found[table] = sorted(row[0] for row in rows)
    return found


@dataclass
class World:
    """Both sides; offsets and positions go on from example to example."""

    source: psycopg.Connection
    target: psycopg.Connection
    recorder: Recorder
    applier: Applier

    def begin(self, rows: int) -> None:
        """The same few rows on both sides."""
        body = "CASE WHEN n % 2 = 1 THEN 'base body, long enough' ELSE 'short' END"
        series = f"FROM generate_series(1, {rows}) AS n"
        for conn in (self.source, self.target):
            conn.execute(
                "; ".join(f"DELETE FROM {table}" for table in TABLES)
                + f"; INSERT INTO shop.item SELECT n, 'c' || n, n, {body}, 'n' {series}"
                + f"; INSERT INTO shop.pair SELECT n, 'p', 0, {body} {series}"
                + f"; INSERT INTO shop.log SELECT n % 2, {body} {series}"
                + "; INSERT INTO shop.serial (number, id, body) OVERRIDING SYSTEM VALUE "
                + f"SELECT n, n, {body} {series}; INSERT INTO shop.only SELECT n {series}"
            )
        self.source.commit()

    def apply(self, transactions: list[Transaction]) -> None:
        self.applier.apply(batch(*transactions))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with recorded_pair(SOURCE, TARGET, KEYS) as pair:
        pair.source.commit()
        with Applier(pair.target_dsn, pair.tables, PLACEHOLDER) as applier:
            assert applier.start("test") is not None
            yield World(pair.source, pair.target, pair.recorder, applier)


ids = st.integers(1, 5)
codes = st.sampled_from([None, "c1", "c2", "c3", "c4", "tab\there", "back\\slash\\N"])
bodies = st.sampled_from(
    [None, "", "a\\b\tc\n\\N", "long enough to be out of line", "another long text, unlogged"]
)
Step = Callable[[Recorder], None]


def _swap(column: str, free: str) -> Callable[[int, int], Step]:
    """Two rows exchange a unique value, by way of a free one."""

    def swap(one: int, other: int) -> Step:
        def run(r: Recorder) -> None:
            rows = dict(
                r.conn.execute(
                    f"SELECT id, {column} FROM shop.item WHERE id IN (%s, %s)", (one, other)
                ).fetchall()
            )
            if len(rows) == 2:
                r.update(ITEM, f"{column} = {free}", f"{column} = %s", rows[one])
                r.update(ITEM, f"{column} = %s", f"{column} = %s", rows[one], rows[other])
                r.update(ITEM, f"{column} = %s", f"{column} = {free}", rows[other])

        return run

    return swap


def _step(
    function: Callable[..., None], *arguments: st.SearchStrategy[Any]
) -> st.SearchStrategy[Step]:
    return st.tuples(*arguments).map(lambda given: lambda r: function(r, *given))


steps: st.SearchStrategy[Step] = st.one_of(
    _step(lambda r, i, c, s, b: r.insert(ITEM, id=i, code=c, slot=s, body=b),
          ids, codes, ids, bodies),
    _step(lambda r, i, n: r.update(ITEM, "note = %s", "id = %s", n, i), ids, bodies),
    _step(lambda r, i, b: r.update(ITEM, "body = %s", "id = %s", b, i), ids, bodies),
    _step(lambda r, i, c, s: r.update(ITEM, "code = %s, slot = %s", "id = %s", c, s, i),
          ids, codes, ids),
    _step(lambda r, i, j: r.update(ITEM, "id = %s", "id = %s", j, i), ids, ids),
    _step(lambda r, i, j, b: r.update(ITEM, "id = %s, body = %s", "id = %s", j, b, i),
          ids, ids, bodies),
    _step(lambda r, i: r.delete(ITEM, "id = %s", i), ids),
    _step(lambda r: r.update(ITEM, "slot = -slot", "true")),
    _step(lambda r: r.update(ITEM, "id = id + 10", "true")),
    _step(lambda r: r.update(ITEM, "id = id - 10", "id > 10")),
    st.builds(_swap("code", "'free'"), ids, ids),
    st.builds(_swap("slot", "-99"), ids, ids),
    st.builds(_swap("id", "-99"), ids, ids),
    _step(lambda r: (r.update(ITEM, "code = NULL, slot = -slot", "true"),
                     r.update(ITEM, "code = 'c' || 6 - id, slot = 6 - id", "true"))),
    _step(lambda r, a, n, b: r.insert(PAIR, a=a, b="p", n=n, body=b), ids, ids, bodies),
    _step(lambda r, a, n: r.update(PAIR, "n = %s", "a = %s", n, a), ids, ids),
    _step(lambda r, a, b: r.update(PAIR, "a = %s", "a = %s", a, b), ids, ids),
    _step(lambda r, a: r.update(PAIR, "b = b || 'p'", "a = %s", a), ids),
    _step(lambda r, a: r.delete(PAIR, "a = %s", a), ids),
    _step(lambda r, w, b: r.insert(LOG, what=w, body=b), st.integers(0, 1), bodies),
    _step(lambda r, w, b: r.update(LOG, "body = %s", "what = %s", b, w), st.integers(0, 1), bodies),
    _step(lambda r, w: r.update(LOG, "what = %s", "what = %s", 1 - w, w), st.integers(0, 1)),
    _step(lambda r: r.delete(LOG, "ctid = (SELECT ctid FROM shop.log LIMIT 1)")),
    _step(lambda r, w: r.delete(LOG, "what = %s", w), st.integers(0, 1)),
    _step(lambda r, i, b: r.insert(SERIAL, id=i, body=b), ids, bodies),
    _step(lambda r, i: r.update(SERIAL, "number = DEFAULT", "id = %s", i), ids),
    _step(lambda r, i, j: r.update(SERIAL, "id = %s", "id = %s", i, j), ids, ids),
    _step(lambda r, i: r.delete(SERIAL, "id = %s", i), ids),
    _step(lambda r, i: r.insert(ONLY, id=i), ids),
    _step(lambda r, i, j: r.update(ONLY, "id = %s", "id = %s", i, j), ids, ids),
    _step(lambda r, i: r.delete(ONLY, "id = %s", i), ids),
    st.sampled_from([(ITEM,), (LOG, ITEM), (PAIR, SERIAL), (ONLY,)]).map(
        lambda tables: lambda r: r.truncate(*tables)
    ),
)  # fmt: skip
transactions = st.lists(
    st.tuples(st.lists(steps, min_size=1, max_size=8), st.integers(0, 9)), min_size=3, max_size=9
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rows=st.integers(0, 5), work=transactions, cuts=st.lists(st.integers(1, 4), max_size=8))
def test_target_equals_source_at_the_end_of_each_batch(
    world: World, rows: int, work: list[tuple[list[Step], int]], cuts: list[int]
) -> None:
    """After each batch the target holds exactly what the source held at its last commit."""
    world.begin(rows)
    recorder = world.recorder
    history: list[tuple[Transaction, Contents]] = []
    for transaction, fate in work:
        recorder.attempt(transaction)
        if fate == 9:
            recorder.rollback()
            continue
        given = recorder.commit()
        history.append((given, contents(world.source)))
        world.source.commit()
    sizes = iter(cuts)
    while history:
        size = next(sizes, 3)
        now, history = history[:size], history[size:]
        world.apply([transaction for transaction, _ in now])
        assert contents(world.target) == now[-1][1]
