"""Rows that a batch only changed are updated, and what the target lacks of them is inserted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cdc_migrator.apply.applier import Applier
from cdc_migrator.model.tables import TableName
from tests.support.as_block import as_block
from tests.support.recorded import PLACEHOLDER, RecordedPair, batch, recorded_pair

ROW = TableName("shop", "row")
SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.row (id int PRIMARY KEY, body text, n int);
"""
# What statements with rows of this table begin with, once for each.
TOLD = """
CREATE TABLE shop.said (word text);
CREATE FUNCTION shop.say() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO shop.said VALUES (split_part(current_query(), ' ', 1)); RETURN NULL; END $$;
CREATE TRIGGER say AFTER INSERT OR UPDATE ON shop.row EXECUTE FUNCTION shop.say();
ALTER TABLE shop.row ENABLE ALWAYS TRIGGER say;
"""
PARTED = """
CREATE SCHEMA shop;
CREATE TABLE shop.row (id int PRIMARY KEY, body text, n int) PARTITION BY RANGE (id);
CREATE TABLE shop.low PARTITION OF shop.row FOR VALUES FROM (MINVALUE) TO (200);
CREATE TABLE shop.high PARTITION OF shop.row FOR VALUES FROM (200) TO (MAXVALUE);
"""


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[RecordedPair]:
    with recorded_pair(SCHEMA, getattr(request, "param", SCHEMA), {ROW: ("id",)}) as pair:
        for number in range(400):
            pair.recorder.insert(ROW, id=number, body=f"row {number}", n=0)
        pair.recorder.commit()
        with pair.target.cursor().copy("COPY shop.row FROM STDIN") as copy:
            for number in range(400):
                copy.write_row((number, f"row {number}", 0))
        pair.target.execute(TOLD)
        yield pair


def change(pair: RecordedPair, *times: int) -> list[str]:
    """Change all rows that often, each time in a batch of its own; how that was written."""
    with Applier(pair.target_dsn, pair.tables, PLACEHOLDER) as applier:
        assert applier.start("test", stale_after=0) is not None
        for number in times:
            pair.recorder.update(ROW, f"n = {number}, body = 'line' || chr(10) || id", "true")
            applier.apply(batch(*as_block(pair.recorder.commit())))
    return [word for (word,) in pair.target.execute("SELECT word FROM shop.said ORDER BY ctid")]


def rows(pair: RecordedPair, side: str) -> list[tuple[object, ...]]:
    conn = pair.source if side == "source" else pair.target
    return conn.execute("SELECT id, body, n FROM shop.row ORDER BY id").fetchall()


def test_rows_that_are_there_are_updated(pair: RecordedPair) -> None:
    assert change(pair, 1, 2) == ["UPDATE", "UPDATE"]
    assert rows(pair, "target") == rows(pair, "source")


def test_a_row_that_is_missing_is_inserted(pair: RecordedPair) -> None:
    """As an upsert would; and the batches behind it are upserted for a while."""
    pair.target.execute("DELETE FROM shop.row WHERE id = 13")

    # The triggers of an upsert fire for what it inserts and for what it updates.
    assert change(pair, 1, 2) == ["UPDATE", "INSERT", "INSERT", "INSERT", "INSERT"]
    assert rows(pair, "target") == rows(pair, "source")


@pytest.mark.parametrize("pair", [PARTED], indirect=True)
def test_rows_of_a_partitioned_table_are_updated(pair: RecordedPair) -> None:
    change(pair, 1, 2)
    assert rows(pair, "target") == rows(pair, "source")


def test_an_insert_in_the_batch_makes_it_an_upsert(pair: RecordedPair) -> None:
    pair.recorder.insert(ROW, id=1000, body="new", n=0)
    assert set(change(pair, 1)) == {"INSERT"}
    assert rows(pair, "target") == rows(pair, "source")
