"""Whatever the target refuses is kept back with all that follows, and comes in once it is mended.

The target has constraints that the source has not. After each batch every row whose key is not kept
back is the source's; after the constraints are gone and what is kept back was tried again, all are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc_migrator.apply.again import Tried, retry
from cdc_migrator.apply.applier import Applier
from cdc_migrator.apply.parking import Parking
from cdc_migrator.apply.pieces import PieceLimits
from cdc_migrator.control import dead_letters
from cdc_migrator.control.dead_letters import KeyState
from cdc_migrator.model.changes import BadRecords, Transaction
from cdc_migrator.model.tables import TableName
from tests.support.recorded import PLACEHOLDER, Recorder, batch, recorded_pair

ITEM, PAIR = (TableName("shop", name) for name in ("item", "pair"))
KEYS = {ITEM: ("id",), PAIR: ("a", "b")}
SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.item (id bigint PRIMARY KEY, code text UNIQUE, slot int UNIQUE, body text,
    note text);
CREATE TABLE shop.pair (a int, b text, n int, body text, PRIMARY KEY (b, a));
"""
# Not looked at for the rows that are there.
DEMANDS = """
ALTER TABLE shop.item ADD CONSTRAINT tame CHECK (note <> 'bad') NOT VALID;
ALTER TABLE shop.item ADD CONSTRAINT low CHECK (slot < 6) NOT VALID;
ALTER TABLE shop.pair ADD CONSTRAINT small CHECK (n < 2) NOT VALID;
"""
MENDED = """
ALTER TABLE shop.item DROP CONSTRAINT IF EXISTS tame, DROP CONSTRAINT IF EXISTS low;
ALTER TABLE shop.pair DROP CONSTRAINT IF EXISTS small;
"""
Contents = dict[tuple[TableName, tuple[Any, ...]], str]


def contents(conn: psycopg.Connection) -> Contents:
    """Every row of every table, by its key."""
    found: Contents = {}
    for table, key in KEYS.items():
        query = f"SELECT t::text, {', '.join(key)} FROM {table} AS t"
        found |= {(table, tuple(row[1:])): row[0] for row in conn.execute(query)}
    return found


@dataclass
class World:
    """Both sides; offsets and positions go on from example to example."""

    source: psycopg.Connection
    target: psycopg.Connection
    recorder: Recorder
    applier: Applier
    pieces: bool
    met: Counter[str] = field(default_factory=Counter)

    def begin(self, rows: int) -> None:
        """The same few rows on both sides, nothing kept back, and the target's demands."""
        body = "CASE WHEN n % 2 = 1 THEN 'base body, long enough' ELSE 'short' END"
        series = f"FROM generate_series(1, {rows}) AS n"
        self.target.execute(MENDED)
        for conn in (self.source, self.target):
            conn.execute(
                "DELETE FROM shop.item; DELETE FROM shop.pair;"
                f"INSERT INTO shop.item SELECT n, 'c' || n, n, {body}, 'n' {series};"
                f"INSERT INTO shop.pair SELECT n, 'p', 0, {body} {series}"
            )
        self.source.commit()
        self.target.execute(DEMANDS)
        self.applier.at_barrier(
            lambda conn: conn.execute(
                "DELETE FROM cdc_migrator.dead_letter; DELETE FROM cdc_migrator.parked_key"
            )
        )

    def retry(self) -> list[Tried]:
        done: list[Tried] = []

        def write(by: Any) -> None:
            chains = dead_letters.chains_of(by.conn, state=KeyState.PARKED)
            done[:] = retry(by, chains, "test")

        self.applier.between(write, KEYS)
        self.met["refused"] += sum(one.fault is not None for one in done)
        self.met["accepted"] += sum(one.fault is None for one in done)
        return done

    def kept_back(self) -> set[tuple[TableName, tuple[Any, ...]]]:
        keys = dead_letters.keys(self.target)
        self.met["keys"] += len(keys)
        self.met["chained"] += len(keys) - len({one.chain for one in keys})
        return {
            (one.table, tuple(json.loads(one.key)[name] for name in KEYS[one.table]))
            for one in keys
        }

    def of_others(self, found: Contents) -> Contents:
        """Without the rows of keys that are kept back."""
        kept_back = self.kept_back()
        return {key: row for key, row in found.items() if key not in kept_back}


@pytest.fixture(scope="module", params=["whole", "pieces"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with recorded_pair(SCHEMA, SCHEMA, KEYS) as pair:
        pair.source.commit()
        with Applier(
            pair.target_dsn,
            pair.tables,
            PLACEHOLDER,
            parking=Parking(BadRecords.PARK),
            pieces=PieceLimits(rows=3),
        ) as applier:
            assert applier.start("test") is not None
            pieces = request.param == "pieces"
            yield World(pair.source, pair.target, pair.recorder, applier, pieces)


ids = st.integers(1, 6)
codes = st.sampled_from([None, "c1", "c2", "c3", "c4", "c5"])
notes = st.sampled_from([None, "good", "bad"])
slots = st.integers(1, 7)
bodies = st.sampled_from([None, "short", "long enough to be out of line", "another, unlogged text"])
Step = Callable[[Recorder], Any]


def _step(function: Callable[..., Any], *arguments: st.SearchStrategy[Any]) -> Any:
    return st.tuples(*arguments).map(lambda given: lambda r: function(r, *given))


def _swap(r: Recorder, column: str, free: str, one: int, other: int) -> None:
    """Two rows exchange a unique value, by way of a free one."""
    found = dict(
        r.conn.execute(
            f"SELECT id, {column} FROM shop.item WHERE id IN (%s, %s)", (one, other)
        ).fetchall()
    )
    if len(found) == 2 and None not in found.values():
        r.update(ITEM, f"{column} = {free}", f"{column} = %s", found[one])
        r.update(ITEM, f"{column} = %s", f"{column} = %s", found[one], found[other])
        r.update(ITEM, f"{column} = %s", f"{column} = {free}", found[other])


def _take_over(r: Recorder, one: int, other: int) -> None:
    """A row goes, and another one gets its key."""
    r.delete(ITEM, "id = %s", one)
    r.update(ITEM, "id = %s", "id = %s", one, other)


steps: st.SearchStrategy[Step] = st.one_of(
    _step(lambda r, i, c, s, b, n: r.insert(ITEM, id=i, code=c, slot=s, body=b, note=n),
          ids, codes, slots, bodies, notes),
    _step(lambda r, i, n: r.update(ITEM, "note = %s", "id = %s", n, i), ids, notes),
    _step(lambda r, i, b: r.update(ITEM, "body = %s", "id = %s", b, i), ids, bodies),
    _step(lambda r, i, c, s: r.update(ITEM, "code = %s, slot = %s", "id = %s", c, s, i),
          ids, codes, slots),
    _step(lambda r, i, j: r.update(ITEM, "id = %s", "id = %s", j, i), ids, ids),
    _step(lambda r, i, j, n: r.update(ITEM, "id = %s, note = %s", "id = %s", j, n, i),
          ids, ids, notes),
    _step(lambda r, i: r.delete(ITEM, "id = %s", i), ids),
    _step(lambda r, i, j: i != j and _take_over(r, i, j), ids, ids),
    _step(lambda r, i, j: i != j and _take_over(r, i, j), ids, ids),
    _step(lambda r: r.update(ITEM, "id = id + 10", "true")),
    _step(lambda r: r.update(ITEM, "id = id - 10", "id > 10")),
    _step(lambda r: r.update(ITEM, "slot = -slot", "true")),
    _step(lambda r, i, j: _swap(r, "code", "'free'", i, j), ids, ids),
    _step(lambda r, i, j: _swap(r, "slot", "-99", i, j), ids, ids),
    _step(lambda r, i, j: _swap(r, "id", "-99", i, j), ids, ids),
    _step(lambda r, a, n, b: r.insert(PAIR, a=a, b="p", n=n, body=b), ids, slots, bodies),
    _step(lambda r, a, n: r.update(PAIR, "n = %s", "a = %s", n, a), ids, slots),
    _step(lambda r, a, b: r.update(PAIR, "a = %s", "a = %s", a, b), ids, ids),
    _step(lambda r, a: r.delete(PAIR, "a = %s", a), ids),
)  # fmt: skip
transactions = st.lists(st.lists(steps, min_size=1, max_size=6), min_size=3, max_size=8)


def commit(world: World, work: list[Step]) -> tuple[Transaction, Contents]:
    """One transaction on the source, and what that held then."""
    recorder = world.recorder
    recorder.attempt(work)
    given = recorder.commit()
    if world.pieces:  # as if it were too large for memory
        given = msgspec.structs.replace(given, tables=frozenset(one.table for one in given.changes))
    held = contents(world.source)
    world.source.commit()
    return given, held


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    rows=st.integers(3, 6),
    bad=st.sets(ids, max_size=3),
    work=transactions,
    cuts=st.lists(st.integers(1, 4), max_size=6),
    mended=st.integers(0, 8),
)
def test_all_that_is_not_kept_back_is_there_and_the_rest_comes_later(
    world: World,
    rows: int,
    bad: set[int],
    work: list[list[Step]],
    cuts: list[int],
    mended: int,
) -> None:
    """After each batch, after each retry, and when the target has been mended."""
    world.begin(rows)
    spoil = [lambda r, i=i: r.update(ITEM, "note = 'bad'", "id = %s", i) for i in sorted(bad)]
    history = [commit(world, steps) for steps in (spoil, *work)]
    # What is kept back from the beginning meets all that follows.
    sizes = iter([1, *cuts])
    done = 0
    while done < len(history):
        now = history[done : done + next(sizes, 3)]
        done += len(now)
        world.applier.apply(batch(*(given for given, _ in now)))
        held = now[-1][1]
        assert world.of_others(contents(world.target)) == world.of_others(held)
        if done - len(now) <= mended < done:
            # Before anything is mended nothing newer is overwritten, and nothing is lost.
            world.retry()
            assert world.of_others(contents(world.target)) == world.of_others(held)
    world.target.execute(MENDED)
    assert [one for one in world.retry() if one.fault is not None] == []
    assert world.kept_back() == set()
    assert world.target.execute("SELECT FROM cdc_migrator.dead_letter").rowcount == 0
    assert contents(world.target) == history[-1][1]


def test_the_workloads_met_what_they_are_for(world: World) -> None:
    """Keys were kept back, some became one another; retries were refused, and accepted."""
    for what in ("keys", "chained", "refused", "accepted"):
        assert world.met[what] > 0, world.met
