"""Which entry of a mapping speaks of which table. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cdc_migrator.model.mapping import Wanted
from cdc_migrator.model.tables import Table, TableName
from cdc_migrator.transform.faults import Fault

# Where a field of the entry with this number stands.
Place = Callable[[int, str], str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One table of the source with what one entry says of it.

    Attributes:
        number: of the entry, for messages.
    """

    table: Table
    wanted: Wanted
    number: int
    target: TableName


def plain_place(number: int, field: str) -> str:
    """The place of a field where nobody knows the file."""
    return f"mapping.{number}.{field}"


def entries(
    wanted: Sequence[Wanted], tables: Sequence[Table], place: Place
) -> tuple[list[Entry], list[Fault]]:
    """Each table that is spoken of with its entries, in the order of the file; and what is wrong.

    A table that an entry names is none of its schema's entry.
    """
    by_name = {str(one.name): one for one in tables}
    named = {one.table for one in wanted if not one.table.endswith(".*")}
    roots = {str(one.root) for one in tables if one.root is not None}
    found: list[Entry] = []
    faults: list[Fault] = []
    for number, one in enumerate(wanted):
        where = place(number, "table")
        if one.table.endswith(".*"):
            schema = one.table.removesuffix(".*")
            of = [t for t in tables if t.name.schema == schema and str(t.name) not in named]
            if not of:
                faults.append(_unknown(where, f"no other table of {schema} moves", ""))
            to = (one.to or one.table).removesuffix(".*")
            found += [Entry(t, one, number, TableName(to, t.name.name)) for t in of]
        elif one.table in by_name:
            table = by_name[one.table]
            target = _name(one.to) if one.to is not None else table.name
            found.append(Entry(table, one, number, target))
        elif one.table in roots:
            faults.append(
                Fault(
                    "CDCM-MAPPING-TABLE",
                    where,
                    f"{one.table} is partitioned: only its partitions have rows",
                    "Map each partition by its own name.",
                )
            )
        else:
            faults.append(
                _unknown(where, f"{one.table} is no table that moves", near(one.table, by_name))
            )
    return found, faults + _twice(found, place) + _also_unmapped(found, tables, place)


def near(name: str, known: Iterable[str]) -> str:
    """`` (did you mean …?)``, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def _name(text: str) -> TableName:
    schema, _, name = text.partition(".")
    return TableName(schema, name)


def _unknown(where: str, message: str, meant: str) -> Fault:
    return Fault(
        "CDCM-MAPPING-TABLE",
        where,
        message + meant,
        "Name a table as schema.table that tables.include chooses; `cdc-migrator check` lists "
        "them.",
    )


def _twice(found: Sequence[Entry], place: Place) -> list[Fault]:
    """One table that goes to the same table by two entries."""
    seen: set[tuple[TableName, TableName]] = set()
    faults = []
    for one in found:
        way = (one.table.name, one.target)
        if way in seen:
            faults.append(
                Fault(
                    "CDCM-MAPPING-TABLE",
                    place(one.number, "to"),
                    f"another entry takes {one.table.name} to {one.target} already",
                    "A table that is split goes to a table of its own by each entry.",
                )
            )
        seen.add(way)
    return faults


def _also_unmapped(found: Sequence[Entry], tables: Sequence[Table], place: Place) -> list[Fault]:
    """Tables that a mapped one would share with one that moves there as it is."""
    mapped = {one.table.name for one in found}
    plain = {one.name for one in tables} - mapped
    return [
        Fault(
            "CDCM-MAPPING-MERGE",
            place(one.number, "to"),
            f"{one.table.name} goes to {one.target}, where {one.target} of the source goes as it "
            "is",
            f"Give {one.target} an entry with a discriminator of its own under `set`, or another "
            "table to go to.",
        )
        for one in found
        if one.target in plain
    ]
