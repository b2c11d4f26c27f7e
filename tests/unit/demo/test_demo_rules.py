"""What the demo decides without a database."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from cdc_migrator.demo.digest import Comparison, TableDigest, compare
from cdc_migrator.demo.kinds import KINDS
from cdc_migrator.demo.ledger import missing_kinds
from cdc_migrator.demo.report import (
    Account,
    Ended,
    Returned,
    Switch,
    held_against,
    together,
)
from cdc_migrator.demo.tally import Side, Summary, Tally, summarize
from cdc_migrator.demo.workload import ALL_KINDS, DSN_VARIABLE, Settings, main
from cdc_migrator.errors import ConfigurationError

ONE = TableDigest(1, "aa")
NOTHING: dict[Side, tuple[str, ...]] = {"source": (), "target": ()}
WHOLE = Account(1, 1, 0, NOTHING, NOTHING)
DONE = Switch("done", 100.0, (), True, 1.0)


def test_a_kind_is_missing_unless_its_count_rose() -> None:
    """A kind that is absent, or stands where it stood, did not commit in between."""
    before = {"insert": 5, "order": 2}
    after = {"insert": 5, "order": 3, "truncate": 1}
    assert missing_kinds(before, after, ("insert", "order", "truncate", "bulk")) == (
        "bulk",
        "insert",
    )


def test_only_the_same_rows_and_content_are_equal() -> None:
    """A table is equal if both sides have it with the same count and the same content."""
    assert Comparison("t", ONE, TableDigest(1, "aa")).equal
    assert not Comparison("t", ONE, TableDigest(1, "ab")).equal
    assert not Comparison("t", ONE, TableDigest(2, "aa")).equal


def test_a_table_that_one_side_lacks_is_listed_and_differs() -> None:
    """Comparing never leaves out a table, whichever side it is missing on."""
    found = compare({"a": ONE, "b": ONE}, {"b": ONE, "c": ONE})
    assert [(c.table, c.equal) for c in found] == [("a", False), ("b", True), ("c", False)]


def test_every_kind_comes_round_in_a_deck_of_about_a_hundred() -> None:
    """At a hundred transactions a second of one writer, each kind commits about once a second."""
    assert all(kind.cards > 0 for kind in KINDS.values())
    assert 80 <= sum(kind.cards for kind in KINDS.values()) <= 120
    assert set(ALL_KINDS) == {*KINDS, "bulk"}


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    """A misspelt kind would otherwise never be made, and never be missed."""
    with pytest.raises(ConfigurationError, match="tuncate") as refused:
        Settings(kinds=("insert", "tuncate"))
    assert "truncate" in refused.value.remedy


def test_no_kinds_at_all_are_refused() -> None:
    """An application that does nothing is not a workload."""
    with pytest.raises(ConfigurationError):
        Settings(kinds=())


def test_the_program_takes_its_dsn_from_the_environment_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the variable it ends as a usage error that names it."""
    monkeypatch.delitem(os.environ, DSN_VARIABLE, raising=False)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert DSN_VARIABLE in capsys.readouterr().err


def test_what_was_acknowledged_and_is_not_there_is_lost() -> None:
    """One commit less than a writer was told, or none at all, is found with its writer and kind."""
    told = {"0/insert": 3, "1/insert": 2, "1/order": 1}
    lost, strange = held_against({"0/insert": 3, "1/insert": 1}, told, {})
    assert (lost, strange) == (("1/insert", "1/order"), ())


def test_what_is_there_and_nobody_was_told_of_is_strange() -> None:
    """More than acknowledged is wrong, unless the answers of that many commits were lost."""
    there, told = {"0/insert": 5, "2/order": 1}, {"0/insert": 3}
    assert held_against(there, told, {"0/insert": 2}) == ((), ("2/order",))
    assert held_against(there, told, {"0/insert": 1, "2/order": 1}) == ((), ("0/insert",))


def test_an_account_is_complete_only_with_nothing_lost_and_nothing_strange() -> None:
    """One key on one side spoils it."""
    bad = replace(WHOLE, lost=NOTHING | {"target": ("0/insert",)})
    assert WHOLE.complete
    assert not bad.complete
    assert not replace(WHOLE, strange=NOTHING | {"source": ("0/insert",)}).complete


def test_a_way_back_is_good_only_if_a_rule_saw_the_failure_and_both_sides_are_equal() -> None:
    """Nothing failed, not beyond, not done, lost, different, nothing compared: each spoils it."""
    back = Returned(
        "error_rate", 0.2, 0.1, 2.0, 3.0, 5.0, 9, DONE, WHOLE, [Comparison("t", ONE, ONE)]
    )
    assert back.good
    lost = replace(WHOLE, lost=NOTHING | {"source": ("0/insert",)})
    for spoilt in (
        replace(back, failed=0),
        replace(back, number=0.1),
        replace(back, switch=replace(DONE, state="undone")),
        replace(back, account=lost),
        replace(back, tables=[]),
        replace(back, tables=[Comparison("t", ONE, None)]),
    ):
        assert not spoilt.good


def test_an_end_is_good_only_with_the_source_shut_and_nothing_left_behind() -> None:
    """Each claim of the last part alone spoils it."""
    ended = Ended(DONE, WHOLE, True, True, 0, "COMPLETED", "report.html", {}, True, 9, 0)
    assert ended.good
    lost = replace(WHOLE, lost=NOTHING | {"target": ("0/insert",)})
    for spoilt in (
        replace(ended, switch=replace(DONE, state="switching")),
        replace(ended, account=lost),
        replace(ended, source_unchanged=False),
        replace(ended, source_refuses=False),
        replace(ended, failed=1),
        replace(ended, status="ROLLED_BACK"),
        replace(ended, left_behind=1),
    ):
        assert not spoilt.good


def test_counts_of_two_runs_are_added_up() -> None:
    """A writer and kind that only one of them has stays as it is."""
    assert together({"0/a": 1, "0/b": 2}, {"0/b": 3}, {}) == {"0/a": 1, "0/b": 5}


def test_a_wait_lasts_from_the_last_commit_to_the_next_and_names_both_sides() -> None:
    """Only who was refused in between has waited, however long the commits are apart."""
    tally = Tally(3, False, 30.0)
    tally.commit("insert", "source")
    tally.commit("insert", "source")
    assert tally.waits == []
    tally.refuse()
    tally.refuse()
    tally.commit("order", "target")
    tally.commit("order", "target")
    (wait,) = tally.waits
    assert (wait.writer, wait.left, wait.entered, wait.refused) == (3, "source", "target", 2)
    assert 0 <= wait.ms < 1000


def test_a_summary_comes_whole_through_the_pipe() -> None:
    """What the program prints is what its handle reads; both sides count as committed."""
    tally = Tally(0, True, 30.0)
    tally.commit("bulk", "source")
    tally.refuse()
    tally.commit("bulk", "target")
    tally.lose("order")
    tally.failed["savepoint"] += 1
    said = summarize([tally], 2.0, 0.5, None)
    assert Summary.read(json.loads(json.dumps(said.as_dict()))) == said
    assert said.acknowledged == {"source": {"0/bulk": 1}, "target": {"0/bulk": 1}}
    assert said.failed == {"savepoint": 1}
    assert (said.committed, said.unsure, said.per_second) == ({"bulk": 2}, {"0/order": 1}, 1.0)
