"""What tells the rows of routes apart: keys, discriminators, replica identity. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from psycopg import sql

from cdc_migrator.databases.postgres import names
from cdc_migrator.model.mapping import MappedColumn, Route
from cdc_migrator.model.tables import ReplicaIdentity, Table
from cdc_migrator.transform.entries import Entry, Place
from cdc_migrator.transform.faults import Fault


@dataclass(frozen=True, slots=True)
class Way:
    """A route on its way to being whole.

    Attributes:
        there: the target's table; None where it is not made yet.
        constants: columns that get the same in every row, with that as text.
    """

    entry: Entry
    route: Route
    there: Table | None
    constants: Mapping[str, str]


def keyed(way: Way, shared: Collection[str], place: Place) -> tuple[Way, list[Fault]]:
    """With its key: the target's, where the source's key and constants decide it, else the source's
    columns there.

    Args:
        shared: the columns that tell it from other routes to the same table.
    """
    table, route = way.entry.table, way.route
    number = way.entry.number
    if not table.key:
        return way, []
    of: dict[str, str] = {}
    for one in route.columns:
        if one.of is not None:
            of.setdefault(one.of, one.name)
    lacking = [name for name in table.key if name not in of]
    if lacking:
        return way, [
            Fault(
                "CDCM-MAPPING-KEY",
                place(number, "table"),
                f"{route.target} lacks {', '.join(lacking)} of the key of {table.name}",
                "Let every column of the key go along as it is, renamed or cast if need be: rows "
                "are found by it.",
            )
        ]
    own = [of[name] for name in table.key]
    there = way.there
    decided = {one.name for one in route.made if set(one.uses) <= set(table.key)}
    if there is not None and {*own, *shared} <= set(there.key) <= decided:
        return replace(way, route=replace(route, key=there.key)), []
    key = (*(name for name in shared if name not in own), *own)
    if there is not None:
        for name in table.key:
            column = route.column(of[name])
            if may_collide(table.column(name).base_type, column):
                return way, [
                    Fault(
                        "CDCM-MAPPING-KEY",
                        place(number, "table"),
                        f"{route.target}.{column.name} is of another type than {table.name}.{name},"
                        " and two keys of the source may be one there: nothing refuses that, as the"
                        f" primary key of {route.target} is not ({', '.join(key)})",
                        "Give the target's table that primary key, or the column its type.",
                    )
                ]
    return replace(way, route=replace(route, key=key)), []


_WHOLE = ("int2", "int4", "int8", "numeric")
_TEXTS = ("text", "varchar")


def may_collide(base: str, column: MappedColumn) -> bool:
    """Whether two values of this type could be one in the column."""
    if not column.cast or base == column.base_type or not column.common:
        return False
    of, to = base.removeprefix("pg_catalog."), column.base_type.removeprefix("pg_catalog.")
    if to in _TEXTS:
        return of not in (*_WHOLE[:3], *_TEXTS, "uuid")
    return of not in _WHOLE[:3] or to not in _WHOLE[_WHOLE.index(of) + 1 :]


def shared_by(ways: Sequence[Way], place: Place) -> tuple[list[str], list[Fault]]:
    """The columns that tell routes to the same table apart: constants that differ."""
    last = ways[-1]
    target = last.route.target
    common = [name for name in last.constants if all(name in one.constants for one in ways)]
    there = last.there
    keyed = [one for one in ways if one.entry.table.key]
    if there is not None and (there.key or keyed):
        candidates = [name for name in there.key if name in common]
    else:
        candidates = common
    if len(_distinct(ways, candidates)) == len(ways):
        for name in candidates:
            if there is None and len(_distinct(ways, [name])) == len(ways):
                return [name], []
        return candidates, []
    tables = ", ".join(str(one.entry.table.name) for one in ways)
    if len(_distinct(ways, common)) == len(ways):
        message = (
            f"{tables} go to {target}, but what tells them apart ({', '.join(common)}) is not in "
            "its primary key: keys of two of them could be the same"
        )
        remedy = f"Make {', '.join(common)} part of the primary key of {target}."
    else:
        message = f"{tables} go to {target}, and nothing tells their rows apart there"
        remedy = (
            "Give each a discriminator under `set`, such as region: \"'eu'\": the same column, "
            "another constant, part of the target's primary key."
        )
    return [], [Fault("CDCM-MAPPING-MERGE", place(last.entry.number, "to"), message, remedy)]


def _distinct(ways: Sequence[Way], columns: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(one.constants[name] for name in columns) for one in ways}


def belongs(way: Way, shared: Sequence[str]) -> str:
    """SQL over the target's row that is true of this route's rows."""
    bound = way.route.bound
    own = [_is(way.route.column(name), way.constants[name]) for name in shared]
    return " AND ".join([*own, *([bound.condition] if bound is not None else [])])


def _is(column: MappedColumn, value: str) -> str:
    """Types that are not PostgreSQL's own are held against the text: their operators need not be
    found."""
    common = column.base_type.startswith("pg_catalog.")
    template = "{} = {}::{}" if common else "{}::pg_catalog.text = {}::{}"
    of_type = names.type_name(column.type_text) if common else sql.SQL("pg_catalog.text")
    return (
        sql.SQL(template).format(sql.Identifier(column.name), sql.Literal(value), of_type)
    ).as_string()


def unseen(way: Way, toasted: Collection[str], place: Place) -> list[Fault]:
    """What an update would not tell: columns that it leaves alone and that are stored aside are not
    in its event.

    Args:
        toasted: columns of the source that may be stored aside.
    """
    table, route = way.entry.table, way.route
    if table.replica_identity is ReplicaIdentity.FULL:
        return []
    faults = []

    def fault(field: str, why: str) -> None:
        statement = f"ALTER TABLE {names.table(table.name).as_string()} REPLICA IDENTITY FULL;"
        faults.append(
            Fault("CDCM-MAPPING-IDENTITY", place(way.entry.number, field), why, statement)
        )

    # What one hook gives has one reason.
    for one in (*route.made, *route.given[:1]):
        aside = [name for name in one.uses if name in toasted]
        if aside and len(one.uses) > 1:
            fault(
                "hook.reads" if one in route.given else f"set.{one.name}",
                f"{route.target}.{one.name} is made of {', '.join(aside)} of {table.name} and of "
                "others: an update that leaves it alone does not say what it is",
            )
    used = route.reads
    aside = [one.name for one in table.columns if one.name in used & set(toasted)]
    if route.where is not None and aside:
        fault(
            "where",
            f"an update of {table.name} that moves a row into the filter and leaves "
            f"{', '.join(aside)} alone does not say what it is",
        )
    return faults
