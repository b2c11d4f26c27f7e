"""Rows of the target's shared tables that no table of the source claims: a table more for each.

Several tables of the source write to one of the target, and each looks after its own rows
(`Route.belongs`). What is left over is nobody's. Whoever compares takes it for one more table,
whose rows on the source are none. Not where the mapping says that others' rows may be there
(`Wanted.others`), nor where a migration was begun before anything could be said of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import psycopg

from cdc_migrator.control import differences, mapping, proofs
from cdc_migrator.control.load import LoadState, TableLoad
from cdc_migrator.model.destinations import destination, entries
from cdc_migrator.model.mapping import Route, Wanted
from cdc_migrator.model.tables import TableName


def read(conn: psycopg.Connection, tables: Iterable[TableLoad]) -> list[TableLoad]:
    """What is left over, of all tables of the migration; asks only where some are shared."""
    every = [one for one in tables if one.belongs is not None]
    return left_over(every, mapping.said(conn)) if every else []


def say(conn: psycopg.Connection, tables: Iterable[TableLoad], now: Sequence[Wanted]) -> None:
    """Keep the mapping with what it says of them by now; what is not looked at any more differs
    no more."""
    every = list(tables)
    before = {one.source for one in left_over(every, mapping.said(conn))}
    left = sorted(before - {one.source for one in left_over(every, now)})
    with conn.transaction():
        mapping.say(conn, now)
        differences.left(conn, left)
        for one in left:
            proofs.forget(conn, one)


def left_over(tables: Iterable[TableLoad], said: Sequence[Wanted]) -> list[TableLoad]:
    """For each shared table of the target what no table claims, as one that is streamed into once
    all of them are.

    Pure.

    Args:
        said: the mapping as it is kept.
    """
    sharing: dict[TableName, list[TableLoad]] = {}
    for one in tables:
        if one.route is not None and one.route.belongs is not None and one.route.back is None:
            sharing.setdefault(one.target, []).append(one)
    return [_rest(target, several) for target, several in sharing.items() if _alone(several, said)]


def _alone(several: Sequence[TableLoad], said: Sequence[Wanted]) -> bool:
    """Whether every entry that has rows go there says that there are no others'."""
    every = [
        entry.others
        for one in several
        for entry in entries(said, one.relation, _whole(one))
        if destination(entry, one.relation, _whole(one)) == one.target
    ]
    return bool(every) and all(one is False for one in every)


def _whole(one: TableLoad) -> TableName | None:
    """The partitioned table that the mapping speaks of in place of this one."""
    bound = one.route.bound if one.route is not None else None
    return bound.whole if bound is not None else None


def _rest(target: TableName, several: Sequence[TableLoad]) -> TableLoad:
    claimed = " OR ".join(f"({one.belongs}\n) IS TRUE" for one in several)
    behind = [one for one in several if one.state is not LoadState.LOADED or one.joining]
    of = (behind or several)[0]
    divided = of.route is not None and of.route.divided
    rest = f"NOT ({claimed})"
    return TableLoad(
        source=named(target),
        target=target,
        state=of.state,
        estimated_rows=0,
        estimated_bytes=0,
        rows_loaded=0,
        bytes_loaded=0,
        source_filenode=of.source_filenode,
        attempt=0,
        reread_snapshot=None,
        reread_until=None,
        planned=of.planned,
        joining=of.joining,
        route=Route(of.relation, target, (), (), "false", belongs=rest, divided=divided),
    )


def named(target: TableName) -> TableName:
    """The name that what is left over of a table has in reports."""
    return TableName(target.schema, f"{target.name} (of no table)")
