"""Changes in files are the same as changes in a list, and their faults have a code."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_migrator.errors import Failed
from cdc_migrator.model.changes import Change, Op
from cdc_migrator.model.tables import TableName
from cdc_migrator.stream import spill
from cdc_migrator.stream.spill import Changes, Spilled, joined

changes = st.builds(
    Change,
    table=st.sampled_from([TableName("s", "t"), TableName("s", "größe")]),
    op=st.sampled_from(Op),
    key=st.binary(max_size=9),
    before=st.none() | st.binary(max_size=30).map(msgspec.Raw),
    after=st.none() | st.binary(max_size=300).map(msgspec.Raw),
    lsn=st.integers(0, 2**63 - 1),
    key_moves_on=st.booleans(),
    key_moved_here=st.booleans(),
)
lists = st.lists(changes, max_size=200)


@given(lists, lists, st.booleans(), st.data())
def test_it_reads_like_the_list(
    first: list[Change], second: list[Change], both: bool, data: st.DataObject
) -> None:
    """Appended, joined, cut, looked at anywhere."""
    other: Changes = Spilled.of(second) if both else second
    ours, theirs = joined(Spilled.of(first), other), first + second
    start = data.draw(st.integers(0, len(theirs)))
    stop = data.draw(st.integers(start, len(theirs)))
    for _ in range(2):
        assert len(ours) == len(theirs)
        assert list(ours) == theirs
        assert list(ours[start:stop]) == theirs[start:stop]
        assert ours[start:stop] == theirs[start:stop]
        if start < len(theirs):
            assert ours[start] == theirs[start]
            assert ours[-1] == theirs[-1]
        more = data.draw(changes)
        ours.append(more)
        theirs.append(more)
    assert isinstance(ours, Spilled)
    assert ours.tables >= {change.table for change in theirs}


def test_changes_larger_than_what_is_read_at_a_time_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A row of ten megabytes is one change like any other."""
    monkeypatch.setattr(spill, "_READ_BYTES", 100)
    monkeypatch.setattr(spill, "_GLANCE_BYTES", 7)
    rows = [
        Change(TableName("s", "t"), Op.INSERT, b"k", None, msgspec.Raw(os.urandom(n)), n)
        for n in (0, 5000, 99)
    ]
    assert list(Spilled.of(rows)) == rows
    assert Spilled.of(rows)[1] == rows[1]


def test_a_large_row_is_not_held_many_times_over() -> None:
    """Written, it is copied once; read, twice."""
    size = 16 << 20
    row = Change(TableName("s", "t"), Op.UPDATE, b"k", None, msgspec.Raw(bytes(size)), 1)
    tracemalloc.start()
    try:
        made = Spilled.of([row, row])
        _, written = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        assert sum(len(change.after or b"") for change in made) == 2 * size
        _, read = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert written < 2.5 * size, written / size
    assert read < 4.5 * size, read / size


def test_nothing_is_left_on_disk(tmp_path: Path) -> None:
    """The file has no name: it is gone with the process, however that ends."""
    made = Spilled.of([Change(TableName("s", "t"), Op.DELETE, b"k", None, None, 1)], tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(made) == 1


def test_no_place_for_the_file_is_a_coded_error(tmp_path: Path) -> None:
    """It names the setting; nothing was applied."""
    with pytest.raises(Failed) as caught:
        Spilled.of(
            [Change(TableName("s", "t"), Op.DELETE, b"k", None, None, 1)], tmp_path / "missing"
        )
    assert caught.value.code == "CDCM-SPILL-FILE"
    assert "apply.spill_dir" in caught.value.remedy
