"""Work a mapping out into routes: everything that can be refused is refused here.

Done once, when the migration begins; loading, applying and comparing read what came of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace

import psycopg

from cdc_migrator.control.load import Routes
from cdc_migrator.databases.postgres import catalog
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.model.mapping import Route, Wanted
from cdc_migrator.model.tables import Column, Table, TableName
from cdc_migrator.transform import hooks, partitions, probe
from cdc_migrator.transform.aside import demanding, toasting
from cdc_migrator.transform.columns import Columns, Sides
from cdc_migrator.transform.entries import Entry, Place, entries, plain_place
from cdc_migrator.transform.faults import Fault, refusal
from cdc_migrator.transform.keys import Way, belongs, keyed, shared_by, unseen
from cdc_migrator.transform.shape import drafts


def compile_routes(
    source: psycopg.Connection,
    target: psycopg.Connection,
    wanted: Sequence[Wanted],
    tables: Sequence[Table],
    place: Place = plain_place,
    *,
    foreseen: bool = False,
) -> Routes:
    """The routes of the tables that a mapping speaks of, in the order of its entries.

    Both sessions come from `connect`, in autocommit mode and outside of a transaction. Nothing of
    what is asked stays on either server.

    Args:
        tables: all that move.
        place: where a field of an entry stands, for messages.
        foreseen: what the target does not have yet is taken to be made as the source has it.

    Raises:
        ConfigurationError: CDCM-MAPPING-TABLE, CDCM-MAPPING-COLUMN, CDCM-MAPPING-EXPRESSION,
            CDCM-MAPPING-KEY, CDCM-MAPPING-MERGE, CDCM-MAPPING-HOOK and those that begin so: with
            every fault and its place.
        Refused: CDCM-MAPPING-TYPE, CDCM-MAPPING-IDENTITY, CDCM-MAPPING-UNLIKE.
        MigratorError: a database failed.
    """
    if not wanted:
        return {}
    ways, faults = ways_of(source, target, wanted, tables, place, foreseen=foreseen)
    if not faults:
        faults = probe.unlike(source, target, ways, place, foreseen=foreseen)
    if not faults:
        faults = hooks.unfit(source, target, ways, place, foreseen=foreseen)
    if faults:
        raise refusal(faults)
    return routes(ways)


def routes(ways: Sequence[Way]) -> Routes:
    """By the source's tables."""
    found: dict[TableName, list[Route]] = {}
    for one in ways:
        found.setdefault(one.route.source, []).append(one.route)
    return found


def ways_of(
    source: psycopg.Connection,
    target: psycopg.Connection,
    wanted: Sequence[Wanted],
    tables: Sequence[Table],
    place: Place = plain_place,
    *,
    foreseen: bool = False,
) -> tuple[list[Way], list[Fault]]:
    """The same without a look at rows, and what is wrong instead of an error."""
    found, faults = entries(wanted, tables, place)
    with speaking("target", "reading the tables that rows go to"):
        there = catalog.read_targets(target)
        demanded = demanding(target, [one.target for one in found])
    with speaking("source", "reading the tables of the mapping"):
        toasted = toasting(source, [one.table.name for one in found])
    ways = []
    asked: dict[tuple[int, tuple[Column, ...]], Way | None] = {}
    for one in found:
        if one.target not in there and not foreseen:
            faults.append(
                Fault(
                    "CDCM-MAPPING-TABLE",
                    place(one.number, "to"),
                    f"the target has no table {one.target}",
                    "`cdc-migrator transform schema` prints the statement that makes it.",
                )
            )
            continue
        # Partitions have the same columns, as a rule: of all of them it is asked, and told, once.
        as_one = one.number, one.table.columns
        if as_one not in asked or not one.of_partition:
            way, wrong = _way(source, target, one, there.get(one.target), place, foreseen)
            if way is not None:
                wrong += _demanded(way, demanded.get(one.target, frozenset()), place)
            faults += wrong
            asked[as_one] = way
        if (like := asked[as_one]) is not None:
            way = replace(like, entry=one, route=replace(like.route, source=one.table.name))
            faults += unseen(way, toasted.get(one.table.name, frozenset()), place)
            ways.append(way)
    # All partitions of a table have the same to say of where they go.
    faults = list(dict.fromkeys(faults))
    if len(ways) < len(found):
        return ways, faults
    ways, wrong = partitions.bounded(source, target, ways, place, foreseen)
    faults += wrong
    whole, wrong = _told_apart(ways, place)
    return whole, faults + wrong


def _way(
    source: psycopg.Connection,
    target: psycopg.Connection,
    entry: Entry,
    there: Table | None,
    place: Place,
    foreseen: bool,
) -> tuple[Way | None, list[Fault]]:
    """One entry's route without its key; None where some of it is wrong."""
    columns, faults = drafts(entry, place)
    if faults:
        return None, faults
    with ExitStack() as stack:
        sides = Sides(source, target, entry.table, stack, foreseen)
        work = Columns(entry, there, sides, place)
        own = hooks.without_given(entry, columns)
        found = [one for draft in own if (one := work.column(draft)) is not None]
        where_uses = work.where()
        constants = work.constants(found)
        hook, given = hooks.worked_out(work, found)
    if work.faults:
        return None, work.faults
    whole = (*found, *given)
    where = entry.wanted.where
    divided = there is not None and there.divided
    if divided and not entry.table.key:
        work.fault(
            "CDCM-MAPPING-TABLE",
            "to",
            f"{entry.target} is partitioned, and {entry.table.name} has no key: its rows would be "
            "told apart by where they lie",
            "Give the source's table a primary key, or let the rows go to an ordinary table.",
        )
        return None, work.faults
    route = Route(
        entry.table.name,
        entry.target,
        whole,
        (),
        where,
        where_uses,
        hook=hook,
        divided=divided,
    )
    return Way(entry, route, there, constants), []


def _demanded(way: Way, demanded: Collection[str], place: Place) -> list[Fault]:
    """Columns that every row of the target needs, and that nothing gives."""
    lacking = sorted(set(demanded) - {one.name for one in way.route.columns})
    if not lacking:
        return []
    return [
        Fault(
            "CDCM-MAPPING-COLUMN",
            place(way.entry.number, "table"),
            f"{way.route.target} demands {', '.join(lacking)} (NOT NULL, without a default), which "
            f"{way.entry.table.name} does not give",
            "Give it an expression under `set`, or a default on the target.",
        )
    ]


def _told_apart(ways: Sequence[Way], place: Place) -> tuple[list[Way], list[Fault]]:
    """With keys, and with what belongs to whom where a target is shared."""
    faults: list[Fault] = []
    by_target: dict[TableName, list[Way]] = {}
    by_source: dict[TableName, list[Way]] = {}
    for one in ways:
        by_target.setdefault(one.route.target, []).append(one)
        by_source.setdefault(one.route.source, []).append(one)
    for split in by_source.values():
        table = split[0].entry.table
        if len(split) > 1 and not table.key:
            faults.append(
                Fault(
                    "CDCM-MAPPING-KEY",
                    place(split[1].entry.number, "table"),
                    f"{table.name} has no key: it cannot be split",
                    "Give it a primary key.",
                )
            )
    whole = []
    for one in ways:
        # The partitions of one table are told apart by their bounds.
        others = {_family(other): other for other in by_target[one.route.target]}
        shared: list[str] = []
        if len(others) > 1:
            shared, wrong = shared_by(list(others.values()), place)
            # All of them have the same to say: once is enough.
            faults += wrong if one is by_target[one.route.target][-1] else []
        if len(others) == 1 or shared:
            one, wrong = keyed(one, shared, place)
            faults += wrong
        if shared or one.route.bound is not None:
            one = replace(one, route=replace(one.route, belongs=belongs(one, shared)))
        whole.append(one)
    return whole, faults


def _family(way: Way) -> tuple[int, TableName | None]:
    """What all partitions of a table have in common that one entry speaks of."""
    entry = way.entry
    return entry.number, entry.table.root if entry.of_partition else entry.table.name
