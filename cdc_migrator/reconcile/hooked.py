"""Read rows of the source of which a hook gives some columns.

The rows that a query is about are read first, as what the hook reads; what it gives goes back to
the source as the parameters of that query, some thousands of rows at a time. So all that compares
and repairs remains SQL, and the source needs nothing but the right to read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import mapped
from cdc_migrator.hook.calling import BATCH, Caller
from cdc_migrator.hook.copied import Passing
from cdc_migrator.reconcile.pairs import Pair

_PORTION = 5_000
ALL = sql.SQL("")


def where(condition: sql.Composable) -> sql.Composable:
    """What `read` takes where the rows are those for which a condition holds."""
    return sql.SQL("WHERE {}").format(condition)


def read(
    source: psycopg.Connection, pair: Pair, query: sql.Composed, among: sql.Composable
) -> Iterator[tuple[Any, ...]]:
    """The rows of a query over `pair.rows` of the source.

    Where a hook gives some of their columns, the query is run once for each portion of them: what
    it adds up comes in as many parts.

    Args:
        source: in a transaction.
        among: what stands behind the rows ``t`` in FROM and leaves no row out that the query is
            about; it knows nothing of what the hook gives.

    Raises:
        psycopg.Error: the source failed. Refused: as `hook.calling.Caller` and its `run`.
    """
    if not pair.hooked:
        yield from source.execute(query)
        return
    assert pair.route is not None
    assert pair.route.hook is not None
    caller = Caller(pair.route)
    columns = [
        mapped.text_of(sql.Identifier("t", mapped.hook_read(place)))
        for place in range(len(pair.route.hook.reads))
    ]
    wanted = sql.SQL("SELECT t.ctid::text, {} FROM {} {}").format(
        sql.SQL(", ").join(columns), pair.plain(False, "t"), among
    )
    parameters = psycopg.RawCursor(source)
    with source.cursor(name="cdcm_hooked") as rows:
        rows.execute(wanted)
        while some := rows.fetchmany(_PORTION):
            by_place = {place: tuple(cells) for place, *cells in some}
            given = caller.run(list(by_place.values()))
            parameters.execute(query, [list(by_place), *map(list, zip(*given, strict=True))])
            yield from parameters.fetchall()


def sent(pair: Pair) -> list[str]:
    """The columns of `pair.plain` that COPY hands to `copied`: those that are written, but for
    what the hook gives, then what it reads."""
    stored = [column.name for column in pair.source.carried]
    if pair.route is None or pair.route.hook is None:
        return stored
    made = stored[: len(stored) - len(pair.route.given)]
    return made + [mapped.hook_read(place) for place in range(len(pair.route.hook.reads))]


def copied(pair: Pair, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Rows in COPY's text format as they are to be written. Raises as `hook.calling.Caller`."""
    if pair.route is None or pair.route.hook is None:
        yield from blocks
        return
    passing = Passing(Caller(pair.route), len(pair.route.hook.reads))
    some: list[bytes] = []
    for block in blocks:
        some.append(block)
        if len(some) == BATCH:
            yield passing.through(b"".join(some))
            some = []
    if some:
        yield passing.through(b"".join(some))
