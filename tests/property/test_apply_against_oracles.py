"""Random work on a source arrives on the target exactly as two oracles say.

The oracles share nothing with our stream and apply: a naive applier of the source's own logical
decoding, and PostgreSQL's logical replication. `make prove-apply` does the same for longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.oracle.contents import differences
from tests.oracle.workload import generate, unchanged
from tests.oracle.world import FOLLOWERS, Outcome, World, world

WORKLOADS = 20


@pytest.fixture(scope="module")
def made(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(stack, tmp_path_factory.mktemp("oracle")) as made:
        yield made


@pytest.fixture(scope="module")
def outcomes(made: World) -> list[Outcome]:
    return [made.round(seed) for seed in range(WORKLOADS)]


@pytest.mark.stack
@pytest.mark.slow
def test_all_followers_hold_what_the_source_holds(outcomes: list[Outcome]) -> None:
    """After each workload: the product's target, the naive one, and PostgreSQL's own."""
    assert [(o.seed, o.faults) for o in outcomes if not o.equal] == []


@pytest.mark.stack
def test_the_workloads_met_what_they_are_for(outcomes: list[Outcome]) -> None:
    """Constraints refused statements; transactions came twice, in pieces, to a new process."""
    assert sum(o.ran.refused for o in outcomes) > 0
    assert sum(o.ran.rolled_back for o in outcomes) > 0
    assert sum(o.ways.redelivered for o in outcomes) > 0
    assert sum(o.ways.torn for o in outcomes) > 0
    assert sum(o.ways.restarts for o in outcomes) > 0


@pytest.mark.stack
def test_long_values_stay_where_an_update_leaves_them_as_they_are(made: World) -> None:
    """For each type that has long values; the log says nothing of one that did not change."""
    outcome = made.carry(unchanged())
    assert outcome.faults == []
    stored = made.databases["source"].execute(
        "SELECT octet_length(raw), length(doc::text), length(both_of::text) FROM shop.mixed"
    )
    assert all(size > 2_500 for size in stored.fetchall()[0])


@pytest.mark.stack
@pytest.mark.parametrize("side", FOLLOWERS)
@pytest.mark.parametrize(
    ("table", "statement"),
    [
        ("parent", "UPDATE shop.parent SET name = 'other'"),
        ("parent", "UPDATE shop.parent SET name = NULL"),
        ("parent", "DELETE FROM shop.parent"),
        ("item", "INSERT INTO shop.item (id) VALUES (1000)"),
        ("log", "INSERT INTO shop.log SELECT * FROM shop.log"),
        ("log", "DELETE FROM shop.log WHERE ctid = (SELECT min(ctid) FROM shop.log)"),
        ("stock_b", "UPDATE shop.stock_b SET body = body || ' '"),
    ],
)
def test_a_wrong_row_is_reported(
    made: World, outcomes: list[Outcome], side: str, table: str, statement: str
) -> None:
    """Changed, emptied, missing, extra, once too often or too rarely: no oracle overlooks it."""
    source, follower = made.databases["source"], made.databases[side]
    with source.transaction(force_rollback=True), follower.transaction(force_rollback=True):
        for conn in (source, follower):
            conn.execute("SET LOCAL session_replication_role = replica")
            conn.execute("TRUNCATE shop.parent, shop.child, shop.grandchild, shop.log, shop.stock")
            conn.execute("INSERT INTO shop.parent VALUES (1, 'one')")
            conn.execute("INSERT INTO shop.log VALUES (1, 'twice'), (1, 'twice')")
            conn.execute("INSERT INTO shop.stock VALUES (1, 'b', 'body')")
        assert made.compare(side) == []
        follower.execute(statement)
        faults = made.compare(side)
    assert faults
    assert all(fault.startswith(f"{side}: {table} ") for fault in faults)


def test_a_seed_means_the_same_work_each_time() -> None:
    """What a failing seed is worth: it can be run again."""
    assert generate(7) == generate(7)
    assert generate(7) != generate(8)


def test_equal_rows_are_counted() -> None:
    """One row too few among equal ones is a difference."""
    assert differences({"log": ["(1)", "(1)"]}, {"log": ["(1)"]}, "x") == ["x: log lacks (1) x1"]
    assert differences({"log": ["(1)"]}, {"log": ["(1)", "(1)"]}, "x") == [
        "x: log has too much (1) x1"
    ]
    assert differences({"log": ["(1)"]}, {"log": ["(1)"]}, "x") == []
