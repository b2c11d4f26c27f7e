"""Rows of a shared table of the target that no table of the source claims: found, named, removed.

What is planted is there beside rows of the shards, under their numbers, and past the stream.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cdc_migrator.backfill.emptied import require_claimed
from cdc_migrator.control import mapping
from cdc_migrator.errors import Refused
from cdc_migrator.model.differences import DIGEST
from cdc_migrator.model.mapping import Wanted
from cdc_migrator.model.tables import TableName
from cdc_migrator.service.mapping import require_same
from tests.integration.mapping_rig import EU, US, Mapped, mapped_world

ITEM, LOG = "crm.item (of no table)", "crm.log (of no table)"
WANTED = (
    Wanted("eu.*", "crm.*", set={"region": "'eu'"}, others=False),
    Wanted("us.*", "crm.*", set={"region": "'us'"}, others=False),
    Wanted("shop.log", "crm.log", set={"what": "'shop'"}, others=False),
)


@pytest.fixture(scope="module")
def made() -> Iterator[Mapped]:
    with mapped_world() as found:
        yield found


@pytest.fixture
def mapped(made: Mapped) -> Mapped:
    """Both sides equal, no row of others, and nothing proven yet."""
    made.fill()
    mapping.say(made.made.target, WANTED)
    made.made.target.execute("DELETE FROM crm.item WHERE region = 'zz'")
    made.made.target.execute("DELETE FROM crm.log WHERE what = 'zz'")
    return made


def plant(mapped: Mapped) -> None:
    """A value that no shard has, under numbers that both have, and under a new one; NULL."""
    for row in ("('apac', 7, 'x', 'ap7')", "('', 7, 'y', 'ap')", "('EU', 9000, 'z', NULL)"):
        mapped.made.target.execute(f"INSERT INTO crm.item VALUES {row}".encode())
    mapped.made.target.execute(
        "INSERT INTO crm.log VALUES (1, 'line 1', NULL), (1, 'line 1', NULL), (NULL, NULL, NULL)"
    )


def test_they_are_found_by_the_targets_key_and_a_repair_deletes_them(mapped: Mapped) -> None:
    """None of the shards' rows differs for it, nor is touched; what went is in the audit."""
    plant(mapped)
    report = mapped.made.run()
    assert not report.equal
    found = mapped.made.found(report)
    assert {key: what for key, what in found.items() if key[0] == ITEM} == {
        (ITEM, ("7", "apac")): ("extra_in_target",),
        (ITEM, ("7", "")): ("extra_in_target",),
        (ITEM, ("9000", "EU")): ("extra_in_target",),
    }
    logs = [one for table in report.tables for one in table.standing if str(table.table) == LOG]
    assert sorted((tuple(one.key), one.source_count, one.target_count) for one in logs) == [
        ((DIGEST,), 0, 1),
        ((DIGEST,), 0, 2),
    ]
    assert {key[0] for key in found} == {ITEM, LOG}

    mended = mapped.made.run(repair=True)
    assert (mended.equal, mended.repaired) == (True, 5)
    mapped.exact(foreign=False)
    assert mapped.made.run().equal
    audited = mapped.made.target.execute(
        "SELECT source_table, action, count(*), sum(rows_before) FROM cdc_migrator.repair "
        "GROUP BY 1, 2 ORDER BY 1"
    ).fetchall()
    assert audited == [
        ("item (of no table)", "deleted", 3, 3),
        ("log (of no table)", "deleted", 2, 3),
    ]


def test_a_shards_row_gets_the_value_that_one_of_them_holds(mapped: Mapped) -> None:
    """Whichever of the two is written first."""
    mapped.made.target.execute("UPDATE crm.item SET once = NULL WHERE (region, id) = ('eu', 7)")
    mapped.made.target.execute("INSERT INTO crm.item VALUES ('apac', 1, 'x', 'eu7')")
    mended = mapped.made.run(repair=True)
    assert (mended.equal, mended.repaired) == (True, 2)
    mapped.exact(foreign=False)


def test_many_are_counted_and_only_so_many_named(mapped: Mapped) -> None:
    """As of any table; repairs go on until none is left."""
    mapped.made.target.execute(
        "INSERT INTO crm.item SELECT 'apac', n, 'x' FROM generate_series(1, 2500) n"
    )
    report = mapped.made.run(work={"most": 2000})
    (nobodys,) = [one for one in report.tables if str(one.table) == ITEM]
    assert (len(nobodys.standing), nobodys.more, nobodys.of_nobody) == (2000, True, True)
    mapped.made.run(work={"most": 2000}, repair=True)
    assert mapped.made.run(work={"most": 2000}, repair=True).equal
    mapped.exact(foreign=False)


def test_their_absence_stands_on_its_proof(mapped: Mapped) -> None:
    """The stream writes none, so an incremental comparison does not look for new ones; one that was
    found is looked at until it is gone."""
    assert mapped.made.run().equal
    plant(mapped)
    report = mapped.made.run(mode="incremental")
    assert report.equal
    assert {str(one.table): one.standing_chunks for one in report.tables if one.of_nobody} == {
        ITEM: 1,
        LOG: 1,
    }
    assert not mapped.made.run(tables=["crm.item *"]).equal
    assert not mapped.made.run(mode="incremental").equal
    mapped.made.target.execute("DELETE FROM crm.item WHERE region NOT IN ('eu', 'us')")
    report = mapped.made.run(mode="incremental")
    assert {str(one.table): one.digested for one in report.tables if one.of_nobody} == {
        ITEM: 1,
        LOG: 0,
    }
    assert report.equal


def test_they_are_chosen_by_their_own_name(mapped: Mapped) -> None:
    """A shard's comparison is about the shard."""
    plant(mapped)
    assert mapped.made.run(tables=["eu.*"]).equal
    report = mapped.made.run(tables=["crm.*"], mode="sample")
    assert {str(one.table) for one in report.tables} == {ITEM, LOG}
    assert not report.equal


def test_a_mapping_may_expect_them(mapped: Mapped) -> None:
    """From when it is said, also under way; where nothing could be said yet nobody looks."""
    plant(mapped)
    target = mapped.made.target
    assert len(mapped.made.found(mapped.made.run())) == 5
    expected = [Wanted("eu.*", "crm.*", set={"region": "'eu'"}, others=True), *WANTED[1:]]
    require_same(target, expected)
    opened = "SELECT source_table FROM cdc_migrator.difference WHERE state = 'open' GROUP BY 1"
    assert target.execute(opened).fetchall() == [("log (of no table)",)], "it counts no more"
    report = mapped.made.run()
    assert {str(one.table) for one in report.tables if one.of_nobody} == {LOG}
    require_same(target, WANTED)
    assert len(mapped.made.found(mapped.made.run(tables=["crm.item *"]))) == 3

    mapping.say(target, [Wanted(one.table, one.to, set=one.set) for one in WANTED])
    assert mapped.made.run().equal
    require_same(target, [Wanted(one.table, one.to, set=one.set) for one in WANTED])
    assert mapped.made.run().equal
    require_same(target, WANTED)
    assert not mapped.made.run().equal


def test_a_load_does_not_begin_beside_them(mapped: Mapped) -> None:
    """So what is found later was never somebody's."""
    target, tables = mapped.made.target, (TableName("crm", "item"),)
    require_claimed(target, tables)
    plant(mapped)
    with pytest.raises(Refused, match=r"crm\.item.*none of them claims") as refused:
        require_claimed(target, tables)
    assert refused.value.code == "CDCM-TARGET-NOT-EMPTY"
    assert "others: true" in refused.value.remedy
    mapping.say(target, [*WANTED[:1], Wanted("us.*", "crm.*", others=True)])
    require_claimed(target, tables)


def test_what_is_compared_is_still_there(mapped: Mapped) -> None:
    """The shards' own rows are compared as before."""
    mapped.plant("a shard", "a row in the wrong shard")
    found = mapped.made.found(mapped.made.run())
    assert {key[0] for key in found} == {str(EU), str(US)}
