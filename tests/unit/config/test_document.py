"""The YAML reader is strict and tells each fault with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc_migrator.config import document


def read(tmp_path: Path, text: str | bytes) -> document.Document:
    path = tmp_path / "migration.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return document.read(path)


def test_plain_words_stay_words(tmp_path: Path) -> None:
    """`no`, `on`, octal-looking numbers and dates are text; only true and false are not."""
    doc = read(
        tmp_path,
        "a: no\nb: on\nc: 010\nd: 2026-01-02\ne: true\nf: 12\ng: 1.5\nh: ~\ni:\nj: 1e3\nk: 1:30",
    )
    assert doc.faults == ()
    assert doc.values == {
        "a": "no",
        "b": "on",
        "c": "010",
        "d": "2026-01-02",
        "e": True,
        "f": 12,
        "g": 1.5,
        "h": None,
        "i": None,
        "j": "1e3",
        "k": "1:30",
    }


def test_each_duplicate_is_told_with_both_lines(tmp_path: Path) -> None:
    """A key that is there twice is a fault, at any depth; all of them are told."""
    doc = read(tmp_path, "a: 1\nb:\n  c: 1\n  c: 2\na: 2\n")
    assert [str(fault) for fault in doc.faults] == [
        "migration.yaml:4: b.c: is there twice (first in line 3)",
        "migration.yaml:5: a: is there twice (first in line 1)",
    ]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: [1\nb: 2\n", "migration.yaml:2"),
        ("a: &x 1\nb: *x\n", "migration.yaml:2"),
        ("a: 1\n---\nb: 2\n", "migration.yaml:2"),
        ("- a\n- b\n", "migration.yaml:1"),
        ("a: 1\n\tb: 2\n", "migration.yaml:2"),
        (b"a: \xff\xfe\n", "migration.yaml"),
    ],
)
def test_broken_text_is_one_fault_with_its_line(
    tmp_path: Path, text: str | bytes, where: str
) -> None:
    """What is no YAML, or not a mapping, or uses aliases, is refused as a whole."""
    (fault,) = read(tmp_path, text).faults
    assert (fault.kind, fault.where) == ("syntax", where)


def test_a_huge_file_is_not_parsed(tmp_path: Path) -> None:
    """The size is bounded before anything is built from it."""
    (fault,) = read(tmp_path, "a: " + "x" * document.MAX_BYTES).faults
    assert "larger than" in fault.message


def test_a_quoted_secret_is_not_repeated(tmp_path: Path) -> None:
    """Where the parser would quote the text, the message leaves it out."""
    (fault,) = read(tmp_path, "password: !hunter2!x y\n").faults
    assert "hunter2" not in str(fault)


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    """No text, or only comments, is an empty mapping."""
    assert read(tmp_path, "# nothing\n").values == {}
