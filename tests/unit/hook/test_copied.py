"""Rows in COPY's text format pass a hook unchanged but for the cells that it reads and gives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cdc_migrator.apply.stage import copy_text
from cdc_migrator.hook.calling import Caller, digest
from cdc_migrator.hook.copied import Passing
from cdc_migrator.model.mapping import Hook, MappedColumn, Route
from cdc_migrator.model.tables import TableName

CALL = "tests.support.row_hooks:line"
T = TableName("shop", "log")

texts = st.none() | st.text("aßN.|\t\n\r\b\v\\\U0001f600", max_size=6)
rows = st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=8)


def column(name: str) -> MappedColumn:
    return MappedColumn(name, name, (name,), name, "text", "pg_catalog.text", cast=False)


def passing() -> Passing:
    hook = Hook(CALL, (column("what"), column("body")), ("loud", "level"), digest(CALL))
    route = Route(T, T, tuple(map(column, ("k", "loud", "level"))), (), hook=hook)
    return Passing(Caller(route), 2)


@given(rows, st.integers(1, 9))
def test_each_row_gets_what_the_function_gives(
    found: list[tuple[str | None, str | None, str | None]], size: int
) -> None:
    """Wherever the blocks end, and whatever there is to be escaped."""
    data = b"".join(copy_text(found))
    one = passing()
    blocks = (data[start : start + size] for start in range(0, len(data), size))
    made = b"".join(map(one.through, blocks))
    expected = [(key, (body or "").upper(), what) for key, what, body in found]
    assert made == b"".join(copy_text(expected))


def test_what_stands_before_the_cells_need_not_be_text() -> None:
    """A server of no encoding sends bytes as they are."""
    assert passing().through(b"\xff\xfe\t1\tb\n") == b"\xff\xfe\tB\t1\n"
