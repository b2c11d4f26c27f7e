"""Rows of which records are kept back, when both sides are compared and repaired."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cdc_migrator.control import dead_letters, journal, load
from cdc_migrator.control.dead_letters import Key, KeyState
from cdc_migrator.errors import Failed, Refused
from cdc_migrator.model.tables import TableName
from tests.integration.reconcile_rig import World, world

ITEM = TableName("shop", "item")


@pytest.fixture
def made() -> Iterator[World]:
    with world(
        "CREATE SCHEMA shop; CREATE TABLE shop.item (id int PRIMARY KEY, v text); "
        "INSERT INTO shop.item SELECT n, 'v' || n FROM generate_series(1, 20) n"
    ) as found:
        yield found


def park(made: World, chain: int, *numbers: int) -> None:
    keys = [Key(ITEM, b'{"id":%d}' % n, chain, KeyState.PARKED, (str(n),)) for n in numbers]
    dead_letters.park(made.target, keys)


def parked(made: World) -> list[str]:
    return [one.texts[0] for one in dead_letters.keys(made.target) if one.texts]


def test_a_repair_settles_what_is_kept_back_with_its_whole_chain(made: World) -> None:
    """Also a key whose rows are equal by now, which no comparison would name."""
    park(made, 1, 3, 4)
    park(made, 2, 9)
    made.source.execute("UPDATE shop.item SET v = 'new' WHERE id = 3")
    report = made.run()
    assert (ITEM, ("3",)) in report.parked
    assert not report.equal
    report = made.run(repair=True)
    assert report.equal
    assert parked(made) == []
    source, target = made.content(ITEM)
    assert source == target
    settled = [one for one in journal.entries(made.target) if one.action == "dead-letters-resolved"]
    assert [one.details["keys"] for one in settled] == [2, 1]


def test_what_the_target_still_refuses_is_in_nobodys_way(made: World) -> None:
    """It stays kept back, and the other rows are repaired."""
    park(made, 1, 3)
    made.source.execute("UPDATE shop.item SET v = 'wild' WHERE id = 3")
    made.source.execute("UPDATE shop.item SET v = 'new' WHERE id = 5")
    made.target.execute("ALTER TABLE shop.item ADD CONSTRAINT tame CHECK (v <> 'wild')")
    report = made.run(repair=True)
    assert report.repaired == 1
    assert made.found(report).keys() == {("shop.item", ("3",))}
    assert parked(made) == ["3"]


def test_a_given_up_key_is_exact_again_after_a_repair(made: World) -> None:
    """And the stream applies to it again."""
    park(made, 1, 3)
    dead_letters.skip(made.target, [1], "a test", "somebody")
    assert dead_letters.standing(made.target).skipped == 1
    made.run(repair=True)
    assert dead_letters.standing(made.target).exact


def test_ranges_are_not_written_anew_over_what_is_kept_back(made: World) -> None:
    """Applied later, it would overwrite what is newer."""
    park(made, 1, 3)
    with pytest.raises(Refused) as refused:
        made.rebuild("shop.item")
    assert refused.value.code == "CDCM-PARK-REBUILD"


def test_a_table_that_is_read_again_has_nothing_kept_back(made: World) -> None:
    """The new rows hold what came."""
    park(made, 1, 3)
    with made.target.transaction():
        load.begin_anew(made.target, ITEM, "1:1:", "0/1", 1, "a test")
    assert parked(made) == []


def test_no_side_is_opened_while_something_is_kept_back(made: World) -> None:
    """The last look before a cutover goes on."""
    dead_letters.require_none(made.target)
    park(made, 1, 3)
    with pytest.raises(Failed) as failed:
        dead_letters.require_none(made.target)
    assert failed.value.code == "CDCM-CUTOVER-PARKED"
