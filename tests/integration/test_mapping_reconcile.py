"""Tables that change their shape on the way are compared, repaired and rebuilt as any others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from cdc_migrator.control import proofs
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.errors import Refused
from cdc_migrator.model.differences import DIGEST
from cdc_migrator.model.naming import Names
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile import ranges
from cdc_migrator.reconcile.chunks import Range, Slicer
from cdc_migrator.reconcile.digest import grouped
from cdc_migrator.reconcile.expressions import Hashing
from cdc_migrator.reconcile.pairs import Pair, Unpaired, routed
from cdc_migrator.service import reconcile
from cdc_migrator.service.keeping import Keeping
from cdc_migrator.service.reconcile import ReconcileOptions
from tests.integration.mapping_rig import (
    ADDRESS,
    CUSTOMER,
    EU,
    LINE,
    LOG,
    NOTE,
    PERSON,
    PLAIN,
    TABLES,
    US,
    Mapped,
    mapped_world,
)
from tests.integration.reconcile_rig import NAME, one


@pytest.fixture(scope="module")
def made() -> Iterator[Mapped]:
    with mapped_world() as found:
        yield found


@pytest.fixture
def mapped(made: Mapped) -> Mapped:
    """Both sides equal, and nothing proven yet."""
    made.fill()
    return made


@pytest.mark.parametrize("mode", ["full", "sample", "incremental"])
def test_what_a_load_leaves_is_equal(mapped: Mapped, mode: str) -> None:
    """Whatever is renamed, cast, computed, left out, split or merged; in chunks, each its own."""
    report = mapped.made.run(mode=mode)
    assert report.equal
    assert {one.table for one in report.tables} == TABLES
    rows = {one.table: one.rows for one in report.tables}
    if mode == "full":
        assert rows == {
            CUSTOMER: 810, ADDRESS: 900, EU: 700, US: 700, LINE: 1200, LOG: 320, PLAIN: 50,
            NOTE: 300,
        }  # fmt: skip
        assert {one.table: one.chunked_by for one in report.tables if one.chunks > 1} == {
            CUSTOMER: "ranges of person_id",
            ADDRESS: "ranges of id",
            EU: "ranges of id",
            US: "ranges of id",
            LINE: "ranges of b",
            NOTE: "ranges of id",
        }


def test_each_difference_is_found_and_repaired_and_nothing_else_is_touched(mapped: Mapped) -> None:
    """Among them rows that belong on the other side of a filter, or into another shard."""
    wanted = mapped.plant()
    assert mapped.made.found(mapped.made.run()) == wanted
    report = mapped.made.run(repair=True)
    assert report.equal
    assert report.repaired == len(wanted)
    mapped.exact()
    assert mapped.made.run().equal


@pytest.mark.parametrize("hashing", [Hashing().slower(), Hashing().slower().slower()])
def test_rows_are_alike_also_as_texts(mapped: Mapped, hashing: Hashing) -> None:
    """Where the servers hash unlike each other, it goes as text."""
    for pair in mapped.pairs().values():
        assert isinstance(pair, Pair)
        here, there = (
            conn.execute(grouped(pair, hashing, target, sql.SQL("0"), sql.SQL("true"))).fetchall()
            for conn, target in ((mapped.made.source, False), (mapped.made.target, True))
        )
        assert here == there


def test_rows_of_a_keyless_table_are_counted(mapped: Mapped) -> None:
    """One too few, one too many, one that the filter leaves out; those of others are not."""
    for statement in (
        "DELETE FROM crm.log WHERE ctid = (SELECT min(ctid) FROM crm.log WHERE text = 'line 7')",
        "INSERT INTO crm.log SELECT * FROM crm.log WHERE (level, text) = (1, 'line 1') LIMIT 1",
        "INSERT INTO crm.log VALUES (0, 'line 5', 'shop'), (0, 'line 5', 'shop')",
    ):
        mapped.made.target.execute(statement.encode())
    report = mapped.made.run()
    found = [known for table in report.tables for known in table.standing]
    assert {(one.table, *one.key) for one in found} == {(LOG, DIGEST)}
    assert sorted(one.kind.value for one in found) == [
        "extra_in_target", "extra_in_target", "missing_in_target",
    ]  # fmt: skip
    assert mapped.made.run(repair=True).equal
    mapped.exact()


def test_one_half_of_a_table_that_is_split_is_chosen(mapped: Mapped) -> None:
    """By where it goes; the table's own name chooses all of it."""
    for pattern, wanted in (
        ("shop.customer", {CUSTOMER, ADDRESS}),
        ("shop.customer -> crm.person", {CUSTOMER}),
        ("* -> crm.address", {ADDRESS}),
        ("*.item -> *", {EU, US}),
    ):
        report = mapped.made.run(tables=[pattern], mode="sample")
        assert {one.table for one in report.tables} == wanted


def test_a_value_that_is_too_long_is_never_taken_for_its_beginning(mapped: Mapped) -> None:
    """A cast would cut it in silence; the target accepts it neither in a load nor in a repair."""
    mapped.made.source.execute("UPDATE shop.customer SET code = 'c1234567' WHERE id = 77")
    mapped.made.target.execute("UPDATE crm.person SET code = 'c1234' WHERE person_id = 77")
    try:
        wanted = {("shop.customer", ("77",)): ("different", "code")}
        assert mapped.made.found(mapped.made.run()) == wanted
        with pytest.raises(Refused, match="SQLSTATE 22001") as refused:
            mapped.made.run(repair=True)
        assert refused.value.code == "CDCM-RECONCILE-REPAIR"
        for wide in ("c7777   ", "c7777"):
            mapped.made.source.execute("UPDATE shop.customer SET code = %s WHERE id = 77", (wide,))
            mapped.made.target.execute("UPDATE crm.person SET code = 'c7777' WHERE person_id = 77")
            assert mapped.made.run().equal, "blanks at the end go"
    finally:
        mapped.made.source.execute("UPDATE shop.customer SET code = 'c77' WHERE id = 77")


def test_a_row_that_another_shard_holds_the_value_of_is_not_taken_from_it(mapped: Mapped) -> None:
    """A repair writes to rows of its own table only; what cannot go beside them is told."""
    mapped.made.target.execute("UPDATE crm.item SET once = 'x' WHERE (region, id) = ('eu', 60)")
    mapped.made.target.execute("UPDATE crm.item SET once = 'eu60' WHERE (region, id) = ('us', 61)")
    with pytest.raises(Refused) as refused:
        mapped.made.run(tables=["eu.*"], repair=True)
    assert refused.value.code == "CDCM-RECONCILE-REPAIR"
    report = mapped.made.run(tables=["us.*"], repair=True)
    assert (report.equal, report.repaired) == (True, 1)
    assert mapped.made.run(repair=True).equal
    mapped.exact()


def test_what_only_the_target_demands_is_told(mapped: Mapped) -> None:
    """Also of columns that it fills by itself."""
    mapped.made.target.execute("CREATE UNIQUE INDEX only_here ON crm.person (full_name, ours)")
    mapped.made.source.execute("UPDATE shop.customer SET name = 'name 12' WHERE id = 11")
    try:
        with pytest.raises(Refused) as refused:
            mapped.made.run(repair=True)
        assert refused.value.code == "CDCM-RECONCILE-REPAIR"
    finally:
        mapped.made.source.execute("UPDATE shop.customer SET name = 'name 11' WHERE id = 11")
        mapped.made.target.execute("DROP INDEX crm.only_here")


def test_whatever_is_wrong_with_a_table_is_written_anew(mapped: Mapped) -> None:
    """In ranges of the key where an index of both sides serves it, else at one point."""
    mapped.plant()
    mapped.made.target.execute("DELETE FROM crm.item WHERE id BETWEEN 100 AND 350")
    mapped.made.target.execute("UPDATE crm.line SET v = upper WHERE b LIKE '%1'")
    mapped.made.rebuild("us.*", range_rows=400)  # first, for it holds a value of the other's
    done = mapped.made.rebuild("*", range_rows=400)
    ranges_ = {one.table: one.ranges for one in done}
    assert ranges_[EU] >= 2
    assert ranges_[LINE] >= 3
    assert ranges_[CUSTOMER] >= 3, "also where the key is of a wider type"
    assert ranges_[LOG] == 1
    mapped.exact()
    assert mapped.made.run().equal


def test_a_range_of_a_shard_is_written_anew(mapped: Mapped) -> None:
    """Its key is what is left when what all of its rows have in common is left out."""
    mapped.made.target.execute("UPDATE crm.item SET value = 'x' WHERE id IN (10, 300)")
    (done,) = mapped.made.rebuild("eu.*", low=("200",), high=("400",))
    assert (done.rows_before, done.rows_after) == (200, 200)
    assert mapped.made.found(mapped.made.run()) == {
        ("eu.item", ("10",)): ("different", "value"),
        ("us.item", ("10",)): ("different", "value"),
        ("us.item", ("300",)): ("different", "value"),
    }


def plan(conn: psycopg.Connection, query: sql.Composable) -> str:
    """How a server would find the rows, if it had to use what it can."""
    with conn.transaction(force_rollback=True):
        for setting in ("seqscan", "bitmapscan"):
            conn.execute(f"SET LOCAL enable_{setting} = off".encode())
        return "\n".join(row[0] for row in conn.execute(sql.SQL("EXPLAIN {}").format(query)))


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        (EU, ("5",), ("9",)),
        (LINE, ("1", "b1"), ("1", "b2")),
        (CUSTOMER, ("5",), ("9",)),
    ],
)
def test_ranges_are_found_by_the_keys_own_indexes(
    mapped: Mapped, table: TableName, low: tuple[str, ...], high: tuple[str, ...]
) -> None:
    """On both sides; of a shared table's rows, those of the shard."""
    pair = mapped.pair(table)
    within = Slicer(pair, pair.key[0].name, Hashing()).within
    for conn, target in ((mapped.made.source, False), (mapped.made.target, True)):
        for condition in (
            ranges.within(pair, low, high, target),
            within(Range("1", "9"), target),
        ):
            assert condition is not None
            rows = sql.SQL("SELECT * FROM {} WHERE {}").format(pair.rows(target), condition)
            how = plan(conn, rows)
            (found,) = [line for line in how.splitlines() if "Index Cond" in line]
            assert ">=" in found, how
            assert "<" in found, how
            assert ("region" in found) == (target and table == EU), how
        blocks = sql.SQL("SELECT * FROM {} WHERE ctid >= '(1,0)' AND ctid < '(3,0)'")
        assert "Tid Range Scan" in plan(conn, blocks.format(pair.rows(target)))


@pytest.mark.parametrize(
    ("type_text", "base_type", "expression", "indexed"),
    [
        ("integer", "pg_catalog.int4", None, True),
        ("numeric", "pg_catalog.numeric", None, False),
        ("smallint", "pg_catalog.int2", None, False),
        ("bigint", "pg_catalog.int8", "id + 1", False),
    ],
)
def test_a_key_that_no_index_serves_is_not_looked_up_by_ranges(
    made: Mapped, type_text: str, base_type: str, expression: str | None, indexed: bool
) -> None:
    """One that is computed, or cast to a type of another order, is in no index of the source."""
    key = replace(
        PERSON.columns[0],
        expression=expression or "id",
        of=None if expression else "id",
        type_text=type_text,
        base_type=base_type,
    )
    source, target = (
        {str(table.name): table for table in read_tables(conn)}
        for conn in (made.made.source, made.made.target)
    )
    there = target["crm.person"]
    mine = replace(there.columns[0], type_text=type_text, base_type=base_type)
    found = routed(
        CUSTOMER,
        replace(PERSON, columns=(key, *PERSON.columns[1:])),
        source["shop.customer"],
        replace(there, columns=(mine, *there.columns[1:])),
    )
    assert isinstance(found, Pair)
    assert found.indexed is indexed


def test_what_all_rows_have_in_common_is_no_part_of_their_key(made: Mapped) -> None:
    """It would only be in the way of the source's index."""
    assert [one.name for one in made.pair(EU).key] == ["id"]


def test_a_repair_makes_the_chunks_of_its_keys_due(mapped: Mapped) -> None:
    """The marks go by the target's names."""
    assert mapped.made.run().equal
    mapped.plant("a renamed column", "a shard", "a key of two columns")
    assert mapped.made.run(repair=True).equal
    proofs.begin_anew(mapped.made.target)
    assert mapped.made.run().equal
    mapped.plant("a scale", "a row in the wrong shard")
    assert mapped.made.run(mode="incremental").equal, "the stream wrote nothing there"
    assert len(mapped.made.found(mapped.made.run())) == 3
    assert mapped.made.run(mode="incremental", repair=True).equal
    report = mapped.made.run(mode="incremental")
    assert report.equal
    assert {one.table: one.digested for one in report.tables if one.digested} == {
        CUSTOMER: 1, EU: 1, US: 1,
    }  # fmt: skip


def test_a_statement_for_a_person_finds_the_same(mapped: Mapped) -> None:
    """Where one server shows both sides; here the target's table is copied to the source."""
    options = ReconcileOptions(NAME, mapped.made.source_dsn, mapped.made.target_dsn)
    mapped.plant("a row in the wrong shard")
    text_ = reconcile.statement(options, EU).replace("FROM other", "FROM crm.item")
    with mapped.made.source.transaction(force_rollback=True):
        mapped.made.source.execute(
            "CREATE SCHEMA crm; CREATE TABLE crm.item "
            "(region text, id bigint, value text, once text)"
        )
        with mapped.made.source.cursor().copy("COPY crm.item FROM STDIN") as copy:
            for row in mapped.made.target.execute("SELECT * FROM crm.item"):
                copy.write_row(row)
        found = mapped.made.source.execute(text_.encode())
        while found.nextset():
            pass
        assert found.fetchall() == [("missing_in_target", "eu", "51", "eu 51", "eu51")]


@pytest.mark.parametrize(
    ("side", "statement", "reason"),
    [
        ("source", "ALTER TABLE shop.customer DROP COLUMN gone", "source does not store gone"),
        ("target", "ALTER TABLE crm.person DROP COLUMN email", "target does not store email"),
        ("target", "ALTER TABLE crm.person ALTER total TYPE text", "total in another type"),
        ("target", "DROP TABLE crm.person", "the target has no such table"),
    ],
)
def test_what_does_not_fit_its_route_any_more_is_told(
    mapped: Mapped, side: str, statement: str, reason: str
) -> None:
    """The table is not compared; others are."""
    conn: Any = mapped.made.source if side == "source" else mapped.made.target
    with conn.transaction(force_rollback=True):
        conn.execute(statement.encode())
        found = mapped.pairs()
    unpaired = [one for one in found.values() if isinstance(one, Unpaired)]
    assert [one.table for one in unpaired] == [CUSTOMER]
    assert reason in unpaired[0].reason


def test_tables_that_keep_their_rows_are_brought_to_a_snapshot(mapped: Mapped) -> None:
    """As at a capture that begins anew: what differs is written, and each shard only its own."""
    mapped.plant()
    mapped.made.target.execute("DELETE FROM crm.line WHERE a = 2")
    mapped.made.target.execute("INSERT INTO crm.log VALUES (0, 'x', 'shop')")
    target = mapped.made.target
    with target.transaction():
        target.execute(
            "UPDATE cdc_migrator.table_progress SET keeps = true, load_state = 'waiting'"
        )
        target.execute("UPDATE cdc_migrator.migration SET consistent_point = '0/1'")
    told: list[str] = []
    ends = mapped.made.source_dsn, mapped.made.target_dsn
    Keeping(*ends, Names(NAME), 2, False, told.append).run()
    assert len(told) == len(TABLES)
    loaded = one(
        target, "SELECT bool_and(load_state = 'loaded' AND keeps) FROM cdc_migrator.table_progress"
    )
    assert loaded == (True,)
    target.execute("UPDATE cdc_migrator.table_progress SET keeps = false")
    mapped.exact()
