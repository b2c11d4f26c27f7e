"""Inserted rows go by COPY straight into their table where that is the same, and only there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cdc_migrator.apply.applier import Applier
from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.tables import TableName
from tests.support.as_block import as_block
from tests.support.recorded import PLACEHOLDER, RecordedPair, batch, recorded_pair

ROW = TableName("shop", "row")
SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.row (id int PRIMARY KEY, body text, n int CHECK (n < 1000));
"""
# Who wrote to the table, as the statement begins.
TOLD = """
CREATE TABLE shop.said (word text);
CREATE FUNCTION shop.say() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO shop.said VALUES (split_part(current_query(), ' ', 1)); RETURN NULL; END $$;
CREATE TRIGGER say AFTER INSERT ON shop.row EXECUTE FUNCTION shop.say();
ALTER TABLE shop.row ENABLE ALWAYS TRIGGER say;
"""
OTHER_TYPE = SCHEMA.replace("body text", "body varchar(100)")


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[RecordedPair]:
    there = getattr(request, "param", SCHEMA)
    with recorded_pair(SCHEMA, there, {ROW: ("id",)}) as pair:
        pair.target.execute(TOLD)
        yield pair


def insert(pair: RecordedPair, *ids: int, n: int = 1) -> None:
    for one in ids:
        pair.recorder.insert(ROW, id=one, body=f"tab\t\\ line\n{one}", n=n)


def apply(pair: RecordedPair, *, times: int = 1) -> list[str]:
    """Apply what was recorded, each transaction a batch where there are several; who wrote."""
    with Applier(pair.target_dsn, pair.tables, PLACEHOLDER) as applier:
        assert applier.start("test", stale_after=0) is not None
        for number in range(times):
            insert(pair, *range(number * 1000, number * 1000 + 400))
            applier.apply(batch(*as_block(pair.recorder.commit())))
    return said(pair)


def said(pair: RecordedPair) -> list[str]:
    return [word for (word,) in pair.target.execute("SELECT word FROM shop.said ORDER BY ctid")]


def rows(pair: RecordedPair, side: str) -> list[tuple[object, ...]]:
    conn = pair.source if side == "source" else pair.target
    return conn.execute("SELECT id, body, n FROM shop.row ORDER BY id").fetchall()


def test_inserted_rows_are_copied_into_the_table(pair: RecordedPair) -> None:
    assert apply(pair) == ["COPY"]
    assert rows(pair, "target") == rows(pair, "source")


@pytest.mark.parametrize("pair", [OTHER_TYPE], indirect=True)
def test_a_column_of_another_type_keeps_them_from_it(pair: RecordedPair) -> None:
    assert apply(pair) == ["INSERT"]
    assert rows(pair, "target") == rows(pair, "source")


def test_a_row_that_is_there_already_is_overwritten(pair: RecordedPair) -> None:
    """Such as one that a repair has written; the next batches go the same way for a while."""
    pair.target.execute("INSERT INTO shop.row VALUES (7, 'former', 0)")
    pair.target.execute("TRUNCATE shop.said")

    assert apply(pair, times=2) == ["INSERT", "INSERT"]
    assert rows(pair, "target") == rows(pair, "source")


def test_an_update_in_the_batch_keeps_rows_from_it(pair: RecordedPair) -> None:
    insert(pair, *range(400))
    first = pair.recorder.commit()
    insert(pair, *range(500, 900))
    pair.recorder.update(ROW, "n = 2", "id = 5")
    second = pair.recorder.commit()
    with Applier(pair.target_dsn, pair.tables, PLACEHOLDER) as applier:
        assert applier.start("test", stale_after=0) is not None
        applier.apply(batch(*as_block(first)))
        applier.apply(batch(*as_block(second)))

    assert said(pair) == ["COPY", "INSERT"]
    assert rows(pair, "target") == rows(pair, "source")


def test_a_row_that_the_target_refuses_halts_in_front_of_its_transaction(
    pair: RecordedPair,
) -> None:
    pair.target.execute("ALTER TABLE shop.row ADD CHECK (n <> 13)")
    insert(pair, *range(400))
    first = pair.recorder.commit()
    insert(pair, 1000, n=13)
    insert(pair, *range(1001, 1400))
    second = pair.recorder.commit()
    with Applier(pair.target_dsn, pair.tables, PLACEHOLDER) as applier:
        assert applier.start("test", stale_after=0) is not None
        with pytest.raises(StreamHalted) as halt:
            applier.apply(batch(*as_block(first, second)))

    assert halt.value.code == "CDCM-APPLY-REJECTED"
    assert [row[0] for row in rows(pair, "target")] == list(range(400))
