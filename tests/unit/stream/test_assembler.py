"""Each rule of whole transactions: what the topic may hold, what is made of it, what halts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from topics import COMMITTED_AT_US, TOPIC, RawRecord, Topic, assemble, decode, load, row_ids

from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Change, Op
from cdc_migrator.model.tables import TableName
from cdc_migrator.stream import proofs
from cdc_migrator.stream.assembler import Assembler, Counters
from cdc_migrator.stream.envelope import Rows
from cdc_migrator.stream.spill import SpillLimits


def halted(records: list[RawRecord], **start: int) -> StreamHalted:
    with pytest.raises(StreamHalted) as caught:
        assemble(records, **start)
    return caught.value


def given(records: list[RawRecord], **start: int) -> list[tuple[int, list[int]]]:
    """Transaction ids and the rows of each."""
    transactions, _ = assemble(records, **start)
    return [(t.xid, row_ids(t)) for t in transactions]


class TestPlain:
    def test_whole_transactions_in_order(self) -> None:
        """An undisturbed stream gives each transaction once, with all that is known of it."""
        topic = Topic()
        topic.transaction(7, [100, 110], 200, first_id=1)
        topic.hole(2)
        topic.transaction(9, [105], 300, first_id=5)
        transactions, assembler = assemble(topic.records)
        first, second = transactions
        assert (first.xid, first.begin_lsn, first.commit_lsn) == (7, 100, 200)
        assert first.committed_at_us == COMMITTED_AT_US
        assert (first.first_offset, first.next_offset) == (0, 4)
        assert (second.first_offset, second.next_offset) == (6, 9)
        assert [row_ids(t) for t in transactions] == [[1, 2], [5]]
        assert [t.suspect for t in transactions] == [False, False]
        assert sum(t.bytes for t in transactions) == sum(r.size for r in decode(topic.records))
        assert assembler.last_commit_lsn == 300
        assert assembler.counters == Counters()

    def test_tombstones_are_passed_over(self) -> None:
        """A record without a value changes nothing, wherever it stands."""
        topic = Topic()
        topic.put({"id": 1}, None)
        topic.begin(7, 100)
        topic.row(7, 100, 1, 1)
        topic.put({"id": 1}, None)
        topic.end(7, 200, 1)
        assert given(topic.records) == [(7, [1])]

    def test_captured_operations(self) -> None:
        """A real connector's records of every kind of change make whole transactions."""
        records = load("operations.jsonl")
        transactions, assembler = assemble(records[:-2])
        events = [r for r in decode(records[:-2]) if isinstance(r, Rows)]
        assert sum(len(t.changes) for t in transactions) == len(events)
        assert all(a.commit_lsn < b.commit_lsn for a, b in itertools.pairwise(transactions))
        truncated = [t for t in transactions if t.changes and t.changes[0].op is Op.TRUNCATE]
        assert [str(c.table) for t in truncated for c in t.changes] == ["shop.line", "shop.audit"]
        # Somebody's logical message: a transaction without rows.
        assert [len(t.changes) for t in transactions if t.suspect] == [0]
        assert assembler.counters == Counters(suspect=1)


class TestCut:
    def test_form_i_goes_on(self) -> None:
        """(i) A transaction that goes on inside its BEGIN is whole."""
        transactions, assembler = assemble(load("form_i_goes_on.jsonl"))
        assert [row_ids(t) for t in transactions] == [[1, 2], [10, 11, 12, 13, 14, 15], [20]]
        assert assembler.counters == Counters(suspect=1)

    def test_form_ii_rest_is_appended(self) -> None:
        """(ii) The rest of a cut transaction is appended, though END counts only the rest."""
        transactions, assembler = assemble(load("form_ii_rest.jsonl"))
        assert [row_ids(t) for t in transactions] == [
            [1, 2],
            [5, 6],
            [10, 11, 12, 13, 14, 15],
            [20],
        ]
        assert assembler.counters == Counters(redelivered=2, joined=1, suspect=1)
        joined = transactions[2]
        assert joined.begin_lsn == 1020
        assert joined.first_offset < joined.next_offset

    def test_form_ii_cut_twice(self) -> None:
        """A second cut of the rest follows the same rule as the first."""
        transactions, assembler = assemble(load("form_ii_cut_twice.jsonl"))
        assert row_ids(transactions[2]) == [10, 11, 12, 13, 14, 15]
        assert assembler.counters == Counters(redelivered=2, joined=2, suspect=1)

    def test_many_cuts_do_not_go_through_all_rows_each(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Five million rows were sent in minutes on a busy machine, with pauses by the hundred."""
        asked = 0
        has_copy = proofs._has_copy

        def counted(changes: Sequence[Change]) -> bool:
            nonlocal asked
            asked += 1
            return has_copy(changes)

        monkeypatch.setattr(proofs, "_has_copy", counted)
        topic = Topic()
        topic.begin(7, 100)
        for order in range(1, 51):
            topic.row(7, 100 + order, order, order)
            topic.cut()
        topic.end(7, 900, 50)
        (whole,) = Assembler(TOPIC, 0, 0).assemble(decode(topic.records))
        assert row_ids(whole) == list(range(1, 51))
        assert whole.suspect
        assert asked == 1

    def test_however_often_it_is_cut_its_parts_hold_what_one_may(self) -> None:
        """Twenty parts of three rows, where four rows are to be in memory: the rest is in files."""
        topic = Topic()
        for part in range(20):
            topic.begin(7, 100 + 10 * part)
            for order in (1, 2, 3):
                topic.row(7, 100 + 10 * part + order, order, 3 * part + order)
            topic.cut()
        topic.end(7, 900, 3)
        records = decode(topic.records)
        part_bytes = sum(record.size for record in records[:4])
        assembler = Assembler(TOPIC, 0, 0, spill=SpillLimits(bytes=part_bytes * 4 // 3))
        (whole,) = assembler.assemble(records)
        assert row_ids(whole) == list(range(1, 61))
        # The first part, and what was open last.
        assert assembler.counters.spilled == 18

    def test_form_ii_closed_empty(self) -> None:
        """A BEGIN that comes again without rows closes what was put aside."""
        transactions, assembler = assemble(load("form_ii_closed_empty.jsonl"))
        assert row_ids(transactions[2]) == [10, 11, 12, 13, 14, 15]
        assert assembler.counters == Counters(redelivered=1, closed_empty=1, suspect=1)

    def test_whole_again_replaces(self) -> None:
        """A transaction that comes again from its first row replaces what was put aside."""
        transactions, assembler = assemble(load("comes_again_whole.jsonl"))
        assert row_ids(transactions[2]) == [10, 11, 12, 13, 14, 15]
        assert assembler.counters == Counters(redelivered=1, replaced=1)

    def test_from_before_the_first_row_replaces(self) -> None:
        """So does one that comes again from below its first row."""
        topic = Topic()
        topic.begin(7, 110)
        topic.row(7, 110, 1, 1)
        topic.row(7, 120, 2, 2)
        topic.begin(7, 100)
        for order, (lsn, row_id) in enumerate([(100, 0), (110, 1), (120, 2), (130, 3)], 1):
            topic.row(7, lsn, order, row_id)
        topic.end(7, 200, 4)
        assert given(topic.records) == [(7, [0, 1, 2, 3])]

    def test_a_replacement_must_hold_what_it_replaces(self) -> None:
        """Rows seen before the cut and missing after it halt: nothing seen may be lost."""
        topic = Topic()
        topic.begin(7, 100)
        for order, (lsn, row_id) in enumerate([(100, 0), (100, 1), (110, 2)], 1):
            topic.row(7, lsn, order, row_id)
        topic.begin(7, 100)
        for order, (lsn, row_id) in enumerate([(100, 1), (110, 2), (120, 3)], 1):
            topic.row(7, lsn, order, row_id)
        topic.end(7, 200, 3)
        assert halted(topic.records).code == "CDCM-STREAM-OVERLAP"

    def test_from_between_halts(self) -> None:
        """A position between the first and the last row aside halts."""
        error = halted(load("comes_again_between.jsonl"))
        assert error.code == "CDCM-STREAM-OVERLAP"
        assert "transaction 702" in error.position

    def test_from_the_last_position_halts(self) -> None:
        """So does the last row's own position, where it is not that of a COPY record."""
        for again in ({"op": "u"}, {"op": "c", "moved_from": 8}):
            topic = Topic()
            topic.begin(7, 100)
            topic.row(7, 100, 1, 1)
            topic.row(7, 110, 2, 2)
            topic.begin(7, 110)
            topic.row(7, 110, 1, 3, **again)  # type: ignore[arg-type]
            topic.end(7, 200, 1)
            assert halted(topic.records).code == "CDCM-STREAM-OVERLAP"

    def test_an_unfinished_begin_must_come_again(self) -> None:
        """A transaction cut before its first row is waited for like any other."""
        topic = Topic()
        topic.transaction(7, [100], 200, first_id=1)
        topic.begin(8, 210)
        topic.empty(7, 200)
        topic.transaction(8, [210, 220], 300, first_id=2)
        assert given(topic.records) == [(7, [1]), (8, [2, 3])]

        lost = Topic()
        lost.begin(8, 210)
        lost.transaction(9, [220], 300, first_id=2)
        assert halted(lost.records).code == "CDCM-STREAM-INTERRUPTED"

    def test_only_itself_or_redeliveries_while_aside(self) -> None:
        """Anything new before the cut transaction has come again halts."""
        error = halted(load("stranger_while_aside.jsonl"))
        assert error.code == "CDCM-STREAM-INTERRUPTED"
        assert "transaction 701 from offset" in error.position

    def test_cut_redelivery_with_rows_while_aside_halts(self) -> None:
        """A second transaction cut while one is aside cannot be told from a new one."""
        topic = Topic()
        topic.transaction(6, [90, 95], 99, first_id=1)
        topic.begin(7, 100)
        topic.row(7, 100, 1, 1)
        topic.begin(6, 90)
        topic.row(6, 90, 1, 1)
        topic.begin(7, 110)
        assert halted(topic.records).code == "CDCM-STREAM-INTERRUPTED"

    def test_cut_redelivery_without_rows_while_aside_is_forgotten(self) -> None:
        """A re-delivery cut between its BEGIN and END held nothing, so nothing is missing."""
        topic = Topic()
        topic.transaction(6, [90], 99, first_id=1)
        topic.begin(7, 100)
        topic.row(7, 100, 1, 5)
        topic.begin(6, 90)
        topic.empty(6, 99)
        topic.begin(7, 110)
        topic.row(7, 110, 1, 6)
        topic.end(7, 200, 1)
        assert given(topic.records) == [(6, [1]), (7, [5, 6])]

    def test_numbering_may_go_on_over_a_second_begin(self) -> None:
        """Where the connector kept its count over the retry, END counts all rows."""
        topic = Topic()
        topic.begin(7, 100)
        topic.row(7, 100, 1, 1)
        topic.row(7, 110, 2, 2)
        topic.begin(7, 120)
        topic.row(7, 120, 3, 3)
        topic.end(7, 200, 3)
        assert given(topic.records) == [(7, [1, 2, 3])]


class TestCopy:
    """Rows of one log record share a position; a cut inside it is where the connector errs."""

    def test_cut_inside_a_record_goes_on_with_the_next_row(self) -> None:
        """The rest of the record is appended, and suspect: only the connector has counted."""
        transactions, assembler = assemble(load("copy_cut.jsonl"))
        assert row_ids(transactions[1]) == [10, 11, 12, 13, 14, 15]
        assert [t.suspect for t in transactions] == [False, True]
        assert assembler.counters == Counters(redelivered=1, joined=1, suspect=1)

    def test_rest_of_a_record_lost_behind_a_pause_halts(self) -> None:
        """(i) with a loss: a cut behind the first row of a record is not taken on trust."""
        assert halted(load("copy_rest_lost.jsonl")).code == "CDCM-STREAM-UNPROVEN-COPY"

    def test_rest_of_a_record_lost_in_another_part_halts(self) -> None:
        """(ii) with a loss: nor is it where the transaction comes again, or was complete."""
        for rest in (2, 0):
            topic = Topic()
            topic.begin(7, 100)
            for order, lsn in enumerate([100, 100, 110], 1):
                topic.row(7, lsn, order, order)
            topic.cut()
            topic.begin(7, 100)
            for order in range(1, rest + 1):
                topic.row(7, 120, order, 10 + order)
            topic.end(7, 200, rest)
            assert halted(topic.records).code == "CDCM-STREAM-UNPROVEN-COPY"

    def test_the_same_without_a_cut_is_plain(self) -> None:
        """A record of one row, or a pause without a new Kafka transaction, is nothing."""
        for interruption in ("none", "pause only", "hole only"):
            topic = Topic()
            topic.begin(7, 100)
            for order, lsn in enumerate([100, 100, 110], 1):
                topic.row(7, lsn, order, order)
            if interruption == "pause only":
                topic.sent_ms += 5000
            if interruption == "hole only":
                topic.hole()
            topic.row(7, 120, 4, 4)
            topic.end(7, 200, 4)
            transactions, assembler = assemble(topic.records)
            assert row_ids(transactions[0]) == [1, 2, 3, 4]
            assert assembler.counters == Counters()

    def test_a_lone_insert_before_a_cut_is_suspect(self) -> None:
        """Without a COPY in sight a plain insert is given; an update is beyond doubt."""
        for op, suspect in (("c", True), ("u", False)):
            topic = Topic()
            topic.begin(7, 100)
            topic.row(7, 100, 1, 1, op=op)
            topic.cut()
            topic.row(7, 110, 2, 2)
            topic.end(7, 200, 2)
            transactions, _ = assemble(topic.records)
            assert [t.suspect for t in transactions] == [suspect]

    def test_a_cut_between_truncates_is_suspect(self) -> None:
        """One record truncates several tables; the others may never come."""
        topic = Topic()
        topic.begin(7, 100)
        topic.row(7, 100, 1, op="t")
        topic.cut()
        topic.row(7, 110, 2, 2)
        topic.end(7, 200, 2)
        transactions, _ = assemble(topic.records)
        assert [t.suspect for t in transactions] == [True]

    def test_a_keyed_row_that_comes_again_behind_a_cut_is_dropped(self) -> None:
        """One log record inserts a key once, so the same row again is the same row."""
        transactions, assembler = assemble(load("copy_row_twice.jsonl"))
        assert row_ids(transactions[1]) == [10, 11, 12, 13]
        assert assembler.counters == Counters(suspect=1)

        topic = Topic()
        topic.begin(7, 100)
        topic.row(7, 100, 1, 1)
        topic.row(7, 100, 2, 2)
        for again in ([2], [2, 3], [1, 2, 3]):
            topic.begin(7, 100)
            for order, row_id in enumerate(again, 1):
                topic.row(7, 100, order, row_id)
        topic.end(7, 200, 3)
        assert given(topic.records) == [(7, [1, 2, 3])]

    def test_a_keyed_row_twice_without_a_cut_halts(self) -> None:
        """Nothing explains it, and inserting it once or twice would be a guess."""
        topic = Topic()
        topic.begin(7, 100)
        for order, row_id in enumerate([1, 2, 2], 1):
            topic.row(7, 100, order, row_id)
        topic.end(7, 200, 3)
        assert halted(topic.records).code == "CDCM-STREAM-OVERLAP"

    def test_one_key_in_two_tables_is_two_rows(self) -> None:
        """Positions are shared across tables too; a key is one only within its table."""
        topic = Topic()
        topic.begin(7, 100)
        topic.row(7, 100, 1, 1, table="a")
        topic.row(7, 100, 2, 1, table="b")
        topic.end(7, 200, 2)
        assert given(topic.records) == [(7, [1, 1])]

    def test_identical_keyless_rows(self) -> None:
        """They are many rows; only across a cut they may be one row twice, which halts."""
        for cut in (False, True):
            topic = Topic()
            topic.begin(7, 100)
            for order in (1, 2, 3):
                topic.row(7, 100, order, 1, keyless=True)
            if cut:
                topic.cut()
            topic.row(7, 100, 4, 1, keyless=True)
            topic.end(7, 200, 4)
            if cut:
                assert halted(topic.records).code == "CDCM-STREAM-OVERLAP"
            else:
                transactions, _ = assemble(topic.records)
                assert len(transactions[0].changes) == 4


class TestRedelivery:
    def test_skipped_by_commit_position(self) -> None:
        """A transaction whose END is not above the last one given is skipped and counted."""
        topic = Topic()
        topic.transaction(7, [100, 110], 200, first_id=1)
        topic.transaction(8, [210], 300, first_id=3)
        topic.transaction(7, [100, 110], 200, first_id=1)
        topic.empty(8, 300)
        topic.transaction(9, [310], 400, first_id=4)
        transactions, assembler = assemble(topic.records)
        assert [t.xid for t in transactions] == [7, 8, 9]
        assert assembler.counters == Counters(redelivered=2)

    def test_known_after_a_restart(self) -> None:
        """The target's commit position tells re-deliveries without any memory of them."""
        topic = Topic()
        topic.transaction(7, [100], 200, first_id=1)
        topic.transaction(8, [210], 300, first_id=3)
        assert given(topic.records, last_commit_lsn=200) == [(8, [3])]
        assert given(topic.records, last_commit_lsn=300) == []

    def test_never_doubted(self) -> None:
        """What was applied long ago is skipped, even where it would not be provable now."""
        topic = Topic()
        topic.begin(7, 100)
        topic.row(7, 110, 1, 2, moved_from=1)  # its delete was not sent again
        topic.row(7, 105, 5, 3)
        topic.end(7, 200, 1)
        topic.transaction(8, [210], 300, first_id=4)
        assert given(topic.records, last_commit_lsn=200) == [(8, [4])]

    def test_cut_redelivery_that_comes_again_is_dropped(self) -> None:
        """A re-delivery that was put aside goes when its END shows it as one."""
        topic = Topic()
        topic.begin(7, 100)
        topic.row(7, 100, 1, 1)
        topic.begin(7, 110)
        topic.row(7, 110, 1, 2)
        topic.end(7, 200, 1)
        topic.transaction(8, [210], 300, first_id=3)
        transactions, assembler = assemble(topic.records, last_commit_lsn=200)
        assert [row_ids(t) for t in transactions] == [[3]]
        assert assembler.counters == Counters(redelivered=1)

    def test_end_without_begin(self) -> None:
        """An END of something old is a re-delivery's; of something new, it halts."""
        topic = Topic()
        topic.end(7, 200, 0)
        topic.transaction(8, [210], 300, first_id=3)
        assert given(topic.records, last_commit_lsn=200) == [(8, [3])]
        assert halted(topic.records, last_commit_lsn=199).code == "CDCM-STREAM-UNOPENED"


class TestProofs:
    def test_row_outside_its_transaction_halts(self) -> None:
        """A row without BEGIN, or inside another transaction, halts."""
        topic = Topic()
        topic.row(7, 100, 1)
        assert halted(topic.records).code == "CDCM-STREAM-UNOPENED"
        topic = Topic()
        topic.begin(7, 100)
        topic.row(8, 100, 1)
        assert halted(topic.records).code == "CDCM-STREAM-UNOPENED"

    def test_end_of_another_transaction_halts(self) -> None:
        """An END that does not belong to what is open halts."""
        topic = Topic()
        topic.begin(7, 100)
        topic.row(7, 100, 1)
        topic.end(8, 200, 1)
        assert halted(topic.records).code == "CDCM-STREAM-UNOPENED"

    @pytest.mark.parametrize("count", [0, 2, 4])
    def test_count_must_match(self, count: int) -> None:
        """END must count the rows since the last BEGIN."""
        topic = Topic()
        topic.begin(7, 100)
        for i in range(3):
            topic.row(7, 100 + i, i + 1, i)
        topic.end(7, 200, count)
        assert halted(topic.records).code == "CDCM-STREAM-COUNT"

    def test_a_lost_row_is_missed_though_the_end_agrees_with_the_rest(self) -> None:
        """A gap in the numbering halts, also in a part that was cut before its END."""
        for orders in ([1, 3], [2, 3]):
            topic = Topic()
            topic.begin(7, 100)
            for i, order in enumerate(orders):
                topic.row(7, 100 + i, order, i)
            topic.end(7, 200, 3)
            assert halted(topic.records).code == "CDCM-STREAM-COUNT"

        topic = Topic()
        topic.begin(7, 100)
        topic.row(7, 100, 1, 1)
        topic.row(7, 110, 3, 3)
        topic.begin(7, 120)
        topic.row(7, 120, 1, 4)
        topic.end(7, 200, 1)
        assert halted(topic.records).code == "CDCM-STREAM-COUNT"

    def test_end_without_rows_must_count_none(self) -> None:
        """An END that counts rows of which none came halts."""
        topic = Topic()
        topic.begin(7, 100)
        topic.end(7, 200, 1)
        assert halted(topic.records).code == "CDCM-STREAM-COUNT"

    def test_positions_never_fall(self) -> None:
        """A falling position inside a transaction halts; equal ones (COPY) do not."""
        topic = Topic()
        topic.transaction(7, [100, 100, 110, 110], 200)
        assert len(given(topic.records)) == 1
        topic = Topic()
        topic.transaction(7, [100, 110, 109], 200)
        assert halted(topic.records).code == "CDCM-STREAM-ORDER"

    def test_commit_lies_behind_its_rows(self) -> None:
        """A row at a position behind its own commit halts."""
        topic = Topic()
        topic.transaction(7, [100, 210], 200)
        assert halted(topic.records).code == "CDCM-STREAM-ORDER"

    def test_suspect_where_the_begin_points_elsewhere(self) -> None:
        """A first row that is not where its BEGIN says is given, flagged and counted."""
        topic = Topic()
        topic.begin(7, 90)
        topic.row(7, 100, 1, 1)
        topic.end(7, 200, 1)
        topic.transaction(8, [210], 300)
        topic.empty(9, 400)
        transactions, assembler = assemble(topic.records)
        assert [t.suspect for t in transactions] == [True, False, True]
        assert assembler.counters == Counters(suspect=2)

    def test_a_joined_transaction_is_judged_by_its_first_begin(self) -> None:
        """The BEGIN of the rest points elsewhere; that alone makes nothing suspect."""
        topic = Topic()
        topic.begin(7, 100)
        topic.row(7, 100, 1, 1, op="u")
        topic.begin(7, 105)
        topic.row(7, 110, 1, 2)
        topic.end(7, 200, 1)
        transactions, _ = assemble(topic.records)
        assert [t.suspect for t in transactions] == [False]


class TestKeyChanges:
    def test_pair_is_proven(self) -> None:
        """Delete and create of one position make a key change, also one after another."""
        topic = Topic()
        topic.begin(7, 100)
        topic.row(7, 100, 1, 1, op="d", moves_to=2)
        topic.row(7, 100, 2, 2, moved_from=1)
        topic.row(7, 110, 3, 2, op="d", moves_to=3)
        topic.row(7, 110, 4, 3, moved_from=2)
        topic.end(7, 200, 4)
        assert given(topic.records) == [(7, [1, 2, 2, 3])]

    def test_form_iii_lost_create_halts(self) -> None:
        """(iii) A delete whose create never came halts, though END's count agrees."""
        error = halted(load("form_iii_create_lost.jsonl"))
        assert error.code == "CDCM-STREAM-UNPROVEN-KEY"
        assert "shop.orders" in error.cause

    def test_form_iii_goes_on_where_the_table_was_read_again(self) -> None:
        """What was lost of a transaction does not matter to a table that holds it already."""
        asked = set()

        def settled(table: TableName, xid: int, commit: int) -> bool:
            asked.add((xid, commit))
            return table == TableName("shop", "orders")

        records = decode(load("form_iii_create_lost.jsonl"))
        given = list(Assembler(TOPIC, 0, 0, settled=settled).assemble(records))
        assert {(one.xid, one.commit_lsn) for one in given} >= asked
        assert any(change.key_moves_on for one in given for change in one.changes)
        with pytest.raises(StreamHalted) as caught:
            list(Assembler(TOPIC, 0, 0, settled=lambda *_: False).assemble(records))
        assert "backfill --again 'shop.orders'" in caught.value.remedy

    def test_every_other_half_halts(self) -> None:
        """A pair that is not adjacent, of one position and of one table is no pair."""
        delete = {"lsn": 100, "row_id": 1, "op": "d", "moves_to": 2}
        create = {"lsn": 100, "row_id": 2, "moved_from": 1}
        other = {"lsn": 100, "row_id": 9}
        for rows in (
            [delete],
            [create],
            [create, delete],
            [delete, delete],
            [delete, other],
            [delete, other, create],
            [delete, {**create, "lsn": 110}],
            [delete, {**create, "table": "lines"}],
            [delete, create, create],
        ):
            topic = Topic()
            topic.begin(7, 100)
            for order, row in enumerate(rows, 1):
                topic.row(7, order=order, **row)  # type: ignore[arg-type]
            topic.end(7, 200, len(rows))
            assert halted(topic.records).code == "CDCM-STREAM-UNPROVEN-KEY"

    def test_cut_between_the_halves_halts(self) -> None:
        """Where the create opens the next part its position equals the last one aside."""
        topic = Topic()
        topic.begin(7, 90)
        topic.row(7, 90, 1, 5)
        topic.row(7, 100, 2, 1, op="d", moves_to=2)
        topic.begin(7, 100)
        topic.row(7, 100, 1, 2, moved_from=1)
        topic.end(7, 200, 1)
        assert halted(topic.records).code == "CDCM-STREAM-OVERLAP"


class TestResume:
    def test_never_past_what_is_open_or_aside(self) -> None:
        """The offset that may be stored stays at the BEGIN of an unfinished transaction."""
        assembler = Assembler(TOPIC, 0, 0)
        unfinished_at: int | None = None
        given_up_to = 0
        for raw, record in zip(
            load("form_ii_cut_twice.jsonl"), decode(load("form_ii_cut_twice.jsonl")), strict=True
        ):
            transaction = next(assembler.assemble([record]), None)
            text = raw.value or b""
            if b'"BEGIN"' in text and b'"702:' in text and unfinished_at is None:
                unfinished_at = raw.offset
            if transaction is not None:
                given_up_to = transaction.next_offset
                if transaction.xid == 702:
                    unfinished_at = None
            if unfinished_at is not None:
                assert assembler.resume_offset == unfinished_at
            assert assembler.resume_offset >= given_up_to
        assert assembler.resume_offset == raw.offset + 1

    def test_moves_past_skipped_redeliveries(self) -> None:
        """With nothing open or aside it is behind the last record, given or skipped."""
        topic = Topic()
        topic.transaction(7, [100], 200)
        skipped_end = topic.next_offset
        _, assembler = assemble(topic.records, last_commit_lsn=200)
        assert assembler.resume_offset == skipped_end
        assert Assembler(TOPIC, 17, 0).resume_offset == 17

    def test_reading_again_from_it_gives_the_rest(self) -> None:
        """From any resume offset on, with the last commit position, nothing is lost or doubled."""
        records = load("form_ii_cut_twice.jsonl")
        whole = given(records)
        for stop in range(len(records) + 1):
            before, assembler = assemble(records[:stop])
            rest = [r for r in records if r.offset >= assembler.resume_offset]
            again = given(
                rest,
                next_offset=assembler.resume_offset,
                last_commit_lsn=assembler.last_commit_lsn,
            )
            assert [(t.xid, row_ids(t)) for t in before] + again == whole

    def test_pending_bytes(self) -> None:
        """What is held in memory and not given yet is known by its size."""
        records = load("form_ii_cut_twice.jsonl")
        assembler = Assembler(TOPIC, 0, 0)
        held = 0
        for record in decode(records):
            if next(assembler.assemble([record]), None) is not None:
                assert assembler.pending_bytes == 0
            held = max(held, assembler.pending_bytes)
        assert held > 5 * 300
