"""What is kept back and what never is, on a real target with constraints of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from cdc_migrator.apply import again as in_portions
from cdc_migrator.apply.again import Tried, retry
from cdc_migrator.apply.applier import Applier
from cdc_migrator.apply.parking import Parking
from cdc_migrator.control import dead_letter_list, dead_letters, journal
from cdc_migrator.control.dead_letters import KeyState, Standing
from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import BadRecords
from cdc_migrator.model.tables import Table, TableName
from tests.support.recorded import PLACEHOLDER, Recorder, batch, recorded_pair

ITEM, PAIR, LOG = (TableName("shop", name) for name in ("item", "pair", "log"))
SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.item (id int PRIMARY KEY, code text UNIQUE, n int);
CREATE TABLE shop.pair (a int, b char(6), n int, PRIMARY KEY (b, a));
CREATE TABLE shop.log (what int);
ALTER TABLE shop.log REPLICA IDENTITY FULL;
"""
DEMANDS = """
ALTER TABLE shop.item ADD CONSTRAINT small CHECK (n < 100);
ALTER TABLE shop.pair ADD CONSTRAINT small CHECK (n < 100);
ALTER TABLE shop.log ADD CONSTRAINT small CHECK (what < 100);
"""


@dataclass
class Rig:
    """A source that is recorded, and a target that demands more."""

    source: psycopg.Connection
    target: psycopg.Connection
    dsn: str
    tables: list[Table]
    recorder: Recorder

    @contextmanager
    def applier(self, policy: BadRecords = BadRecords.PARK, most: int = 1000) -> Iterator[Applier]:
        with Applier(
            self.dsn, self.tables, PLACEHOLDER, parking=Parking(policy, most), retry_for=20.0
        ) as made:
            assert made.start("test", stale_after=0) is not None
            yield made

    def item(self, number: int, n: int, code: str | None = None) -> None:
        self.recorder.insert(ITEM, id=number, code=code, n=n)

    def rows(self, conn: psycopg.Connection, table: TableName = ITEM) -> list[tuple[Any, ...]]:
        found = conn.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
        if conn is self.source:
            conn.commit()
        return found

    def standing(self) -> Standing:
        return dead_letters.standing(self.target)

    def mend(self) -> None:
        self.target.execute("ALTER TABLE shop.item DROP CONSTRAINT small")


@pytest.fixture
def rig() -> Iterator[Rig]:
    keys = {ITEM: ("id",), PAIR: ("b", "a")}
    with recorded_pair(SCHEMA, SCHEMA + DEMANDS, keys) as pair:
        yield Rig(pair.source, pair.target, pair.target_dsn, pair.tables, pair.recorder)


def again(applier: Applier) -> list[Tried]:
    done: list[Tried] = []

    def write(by: Any) -> None:
        chains = dead_letters.chains_of(by.conn, state=KeyState.PARKED)
        done[:] = retry(by, chains, "somebody")

    applier.between(write, [ITEM, PAIR])
    return done


def test_a_bad_row_is_kept_back_and_all_others_go_on(rig: Rig) -> None:
    """With its position, its bytes and the reason by name; the halves cost few statements."""
    for number in range(200):
        rig.item(number, 500 if number == 77 else 1)
    given = rig.recorder.commit()
    with rig.applier() as applier:
        applied = applier.apply(batch(given))
    assert applied.parked == 1
    assert applied.counts[ITEM][0] == 200
    assert rig.rows(rig.target) == [row for row in rig.rows(rig.source) if row[0] != 77]
    (key,) = dead_letter_list.listed(rig.target, None, None)
    assert (key.table, key.state, key.letters) == ("shop.item", "parked", 1)
    assert (key.sqlstate, key.constraint_name) == ("23514", "small")
    assert key.fault == "SQLSTATE 23514, shop.item, constraint small"
    (letter,) = dead_letter_list.shown(rig.target, key.hash[:10])
    assert (letter.op, letter.record_key) == ("c", b'{"id":77}')
    assert letter.after_image == bytes(given.changes[77].after or b"")
    assert (letter.place, letter.lsn) == (77, given.changes[77].lsn)
    assert letter.commit_position == given.commit_lsn
    assert (letter.first_offset, letter.next_offset) == (given.first_offset, given.next_offset)
    told = [one for one in journal.entries(rig.target) if one.action == "records-parked"]
    assert [one.details["keys"] for one in told] == [1]


def test_another_process_goes_on_with_what_is_kept_back(rig: Rig) -> None:
    """Nothing of it is in memory alone."""
    rig.item(1, 500)
    with rig.applier() as applier:
        applier.apply(batch(rig.recorder.commit()))
    rig.recorder.update(ITEM, "n = 2", "id = 1")
    rig.item(2, 2)
    with rig.applier(BadRecords.HALT) as applier:
        applier.apply(batch(rig.recorder.commit()))
        assert rig.rows(rig.target) == [(2, None, 2)]
        assert rig.standing().letters == 2
        # What is refused was corrected on the source meanwhile: nothing has to be mended.
        assert [one.fault for one in again(applier)] == [None]
    assert rig.rows(rig.target) == rig.rows(rig.source)
    assert rig.standing().exact


def test_rows_in_each_others_way_come_in_together(rig: Rig) -> None:
    """A value that a row that is kept back still has on the target; refused alone, not together."""
    rig.item(1, 1, "a")
    rig.item(2, 1, "b")
    first = rig.recorder.commit()
    rig.recorder.update(ITEM, "code = 'c', n = 500", "id = 1")
    rig.recorder.update(ITEM, "code = 'a'", "id = 2")
    second = rig.recorder.commit()
    rig.recorder.update(ITEM, "code = 'b'", "id = 1")
    third = rig.recorder.commit()
    with rig.applier() as applier:
        applier.apply(batch(first))
        applier.apply(batch(second, third))
        assert rig.standing().keys == 2
        assert len([one for one in again(applier) if one.fault]) == 2
        rig.mend()
        assert [one.fault for one in again(applier)] == [None, None]
    assert rig.rows(rig.target) == rig.rows(rig.source)


def test_more_than_there_is_memory_for_comes_in_by_portions(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one is in the way of nobody, and waits for the room that the second one leaves."""
    monkeypatch.setattr(in_portions, "_PORTION_BYTES", 1)
    rig.item(1, 1, "a")
    rig.item(2, 1, "b")
    first = rig.recorder.commit()
    rig.recorder.update(ITEM, "n = 500", "id = 2")
    rig.recorder.update(ITEM, "n = 500, code = 'c'", "id = 1")
    rig.recorder.update(ITEM, "code = 'a'", "id = 2")
    second = rig.recorder.commit()
    with rig.applier() as applier:
        applier.apply(batch(first))
        applier.apply(batch(second))
        assert (rig.standing().keys, rig.standing().letters) == (2, 3)
        assert len([one for one in again(applier) if one.fault]) == 2
        rig.mend()
        assert [one.fault for one in again(applier)] == [None, None]
    assert rig.rows(rig.target) == rig.rows(rig.source)
    assert rig.standing().exact


def test_a_key_change_onto_a_row_that_is_kept_back_waits_with_it(rig: Rig) -> None:
    """Both keys are one chain, and come in as one."""
    rig.item(1, 1)
    rig.item(2, 1)
    first = rig.recorder.commit()
    rig.recorder.update(ITEM, "n = 500", "id = 1")
    second = rig.recorder.commit()
    rig.recorder.update(ITEM, "id = 3", "id = 1")
    rig.recorder.update(ITEM, "id = 1", "id = 2")
    rig.item(2, 9)
    third = rig.recorder.commit()
    with rig.applier() as applier:
        for one in (first, second, third):
            applier.apply(batch(one))
        assert rig.rows(rig.target) == [(1, None, 1), (2, None, 1)]
        assert {one.chained for one in dead_letter_list.listed(rig.target, None, None)} == {3}
        rig.mend()
        assert [one.fault for one in again(applier)] == [None]
    assert rig.rows(rig.target) == rig.rows(rig.source)


def halt(applier: Applier, rig: Rig) -> StreamHalted:
    with pytest.raises(StreamHalted) as halted:
        applier.apply(batch(rig.recorder.commit()))
    return halted.value


def test_what_is_no_single_rows_fault_halts(rig: Rig) -> None:
    """A table without a key, a truncate, too many keys, a right or a column that is missing."""
    with rig.applier(most=2) as applier:
        rig.recorder.insert(LOG, what=500)
        halted = halt(applier, rig)
        assert halted.code == "CDCM-APPLY-REJECTED"
        assert "apply.bad_records" in halted.remedy
        rig.item(1, 500)
        applier.apply(batch(rig.recorder.commit()))
        rig.recorder.truncate(ITEM)
        halted = halt(applier, rig)
        assert (halted.code, "transaction" in halted.position) == ("CDCM-PARK-TRUNCATE", True)
        for number in range(10, 14):
            rig.item(number, 500)
        assert halt(applier, rig).code == "CDCM-PARK-LIMIT"
        rig.target.execute("ALTER TABLE shop.item RENAME n TO m")
        rig.item(20, 1)
        assert "42703" in halt(applier, rig).cause
        rig.target.execute("ALTER TABLE shop.item RENAME m TO n")
        rig.target.execute("ALTER TABLE shop.item RENAME TO things")
        rig.item(21, 1)
        assert "42P01" in halt(applier, rig).cause
        rig.target.execute("ALTER TABLE shop.things RENAME TO item")
    assert rig.standing().keys == 1
    assert rig.rows(rig.target) == []


def test_an_error_that_passes_is_never_kept_back(rig: Rig) -> None:
    """In the middle of looking for a bad row the session is ended; nothing is doubled or lost."""
    rig.target.execute(
        "CREATE SEQUENCE shop.tries; CREATE FUNCTION shop.end_it() RETURNS trigger "
        "LANGUAGE plpgsql AS $$ BEGIN IF nextval('shop.tries') = 60 THEN "
        "PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NEW; END $$; "
        "CREATE TRIGGER end_it BEFORE INSERT ON shop.item FOR EACH ROW "
        "EXECUTE FUNCTION shop.end_it(); ALTER TABLE shop.item ENABLE ALWAYS TRIGGER end_it"
    )
    for number in range(40):
        rig.item(number, 500 if number % 9 == 4 else 1)
    with rig.applier() as applier:
        applied = applier.apply(batch(rig.recorder.commit()))
        assert applied.retries == 1
        assert applied.parked == rig.standing().letters == 4
        assert len(rig.rows(rig.target)) == 36
        rig.mend()
        assert all(one.fault is None for one in again(applier))
    assert rig.rows(rig.target) == rig.rows(rig.source)


def test_a_key_that_was_given_up_is_left_out_and_counted(rig: Rig) -> None:
    """Until it is settled another way; nothing of it is applied on top of what is missing."""
    rig.item(1, 500)
    with rig.applier() as applier:
        applier.apply(batch(rig.recorder.commit()))
        applier.at_barrier(
            lambda conn: dead_letters.skip(
                conn, dead_letters.chains_of(conn), "a test row", "somebody"
            )
        )
        rig.recorder.update(ITEM, "n = 3", "id = 1")
        applier.apply(batch(rig.recorder.commit()))
        assert again(applier) == []
    there = rig.standing()
    assert (there.keys, there.skipped, there.left_out, there.exact) == (0, 1, 1, False)
    assert rig.rows(rig.target) == []
    (told,) = [one for one in journal.entries(rig.target) if one.action == "dead-letters-skipped"]
    assert (told.details["reason"], told.details["keys"]) == ("a test row", 1)


def test_keys_are_known_as_comparisons_spell_them(rig: Rig) -> None:
    """Every column of the key, as the server writes it."""
    rig.recorder.insert(PAIR, a=1, b=chr(34), n=500)
    with rig.applier() as applier:
        applier.apply(batch(rig.recorder.commit()))
    pair = next(table for table in rig.tables if table.name == PAIR)
    texts = {"a": "1", "b": chr(34).ljust(6)}
    (key,) = dead_letters.keys(rig.target)
    assert key.texts == tuple(texts[name] for name in pair.key)
