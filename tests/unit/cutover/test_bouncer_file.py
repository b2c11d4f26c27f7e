"""One line of PgBouncer's file changes, and not a byte beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_migrator.cutover.hooks.bouncer_file import (
    Unfit,
    find,
    pairs,
    pointing,
    replace,
    try_to_replace,
)

FILE = b"""; shop = not this one
[users]
shop = pool_mode=session
[databases]\r
# shop = nor this
other = host=a dbname=shop
"Sh op" = host=b
shop=host=db1 port=5432 dbname='my shop' password='it''s'  \r
* = host=fallback
[pgbouncer]
shop = 1
"""


def test_only_the_value_is_replaced() -> None:
    """Comments, other sections, blanks, line ends and the line's own name stay."""
    line = find(FILE, "shop")
    assert line.value == "host=db1 port=5432 dbname='my shop' password='it''s'"
    assert line.saying(line.value) == FILE
    changed = line.saying("host=db2")
    assert changed == FILE.replace(line.value.encode(), b"host=db2")
    assert find(changed, "shop").value == "host=db2"
    assert find(FILE, "Sh op").value == "host=b"


def test_an_included_file_begins_in_the_middle() -> None:
    """Without a heading its lines are databases."""
    assert find(b"shop = host=a", "shop").value == "host=a"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[databases]\nshop = host=a\nshop = host=b\n", "has 2 lines"),
        (b"[databases]\n* = host=a\n", "has no lines"),
        (b"[databases]\nshop = host=\xff\n", "not UTF-8"),
    ],
)
def test_a_line_that_is_not_there_once_is_refused(content: bytes, words: str) -> None:
    """Which of several counts is PgBouncer's business."""
    with pytest.raises(Unfit, match=words):
        find(content, "shop")


def test_a_line_is_pointed_elsewhere_and_keeps_the_rest() -> None:
    """Pool size, user and the like are not the target's business; twice is once."""
    value = "host=db1 port=6000 dbname=shop user=app password='it''s' pool_size=20"
    place = {"host": "db2", "port": "5432", "dbname": "new shop"}
    moved = pointing(value, place)
    assert pairs(moved) == {**pairs(value), **place}
    assert pointing(moved, place) == moved
    assert pointing("", place) == "host=db2 port=5432 dbname='new shop'"
    with pytest.raises(Unfit):
        pointing("postgresql://db1", place)


@given(
    st.dictionaries(
        st.sampled_from(["host", "user", "password", "dbname"]),
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"])),
    )
)
def test_what_is_quoted_is_read_back(place: dict[str, str]) -> None:
    """Whatever stands in a password."""
    assert pairs(pointing("", place)) == place


def test_a_file_keeps_its_mode(tmp_path: Path) -> None:
    """It is replaced in one step, and nothing is left beside it."""
    path = tmp_path / "pgbouncer.ini"
    path.write_bytes(FILE)
    path.chmod(0o640)
    try_to_replace(path)
    assert path.read_bytes() == FILE
    replace(path, b"new", like=path)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o640)
    assert list(tmp_path.iterdir()) == [path]
