"""The memory of a sort is enough for one merge pass, and no more."""

import pytest

from cdc_migrator.backfill.sorting import sort_memory

_KB = 1024


@pytest.mark.parametrize("size", [1 << n for n in range(20, 44, 3)])
def test_one_pass_merges_all_runs_of_what_is_sorted(size: int) -> None:
    """By tuplesort.c: a buffer of 256 kB and two blocks for each run; at most 500 runs."""
    memory = sort_memory(size)
    runs = -(-2 * size // memory)
    buffers = min(memory // (272 * _KB), 500)
    assert runs <= buffers + 1
    assert memory == 16 << 20 or buffers < 1.1 * runs


def test_of_a_small_table_it_is_small_and_of_a_large_one_not_too_large() -> None:
    assert sort_memory(0) == sort_memory(400 << 20) == 16 << 20
    assert sort_memory(10 << 30) < 100 << 20
    assert sort_memory(100 << 30) < 500 << 20
