"""What the demo decides without a database."""

from __future__ import annotations

import os

import pytest

from cdc_migrator.demo.digest import Comparison, TableDigest, compare
from cdc_migrator.demo.kinds import KINDS
from cdc_migrator.demo.ledger import missing_kinds
from cdc_migrator.demo.workload import ALL_KINDS, DSN_VARIABLE, Settings, main
from cdc_migrator.errors import ConfigurationError

ONE = TableDigest(1, "aa")


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
