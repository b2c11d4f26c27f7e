"""Which entry of a mapping speaks of which table. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cdc_migrator.model.destinations import destination
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

    @property
    def of_partition(self) -> bool:
        """Whether it speaks of the partitioned table that this one is a part of."""
        return self.wanted.table == str(self.table.root)


def plain_place(number: int, field: str) -> str:
    """The place of a field where nobody knows the file."""
    return f"mapping.{number}.{field}"


def entries(
    wanted: Sequence[Wanted], tables: Sequence[Table], place: Place
) -> tuple[list[Entry], list[Fault]]:
    """Each table that is spoken of with its entries, in the order of the file; and what is wrong.

    A table that an entry names is none of its schema's entry, and a partition that one names none
    of its partitioned table's.
    """
    by_name = {str(one.name): one for one in tables}
    named = {one.table for one in wanted if not one.table.endswith(".*")}
    parts: dict[str, list[Table]] = {}
    for table in tables:
        if table.root is not None and str(table.name) not in named:
            parts.setdefault(str(table.root), []).append(table)
    unnamed = [one for one in tables if str(one.name) not in named and str(one.root) not in named]
    found: list[Entry] = []
    faults: list[Fault] = []
    for number, one in enumerate(wanted):
        where = place(number, "table")
        if one.table.endswith(".*"):
            schema = one.table.removesuffix(".*")
            of = [table for table in unnamed if table.name.schema == schema]
            if not of:
                faults.append(_unknown(where, f"no other table of {schema} moves", ""))
        elif one.table in by_name:
            of = [by_name[one.table]]
        elif one.table in parts:
            of = parts[one.table]
        else:
            of = []
            meant = near(one.table, [*by_name, *parts])
            faults.append(_unknown(where, f"{one.table} is no table that moves", meant))
        found += [
            Entry(table, one, number, destination(one, table.name, table.root)) for table in of
        ]
    return found, faults + _twice(found, place) + _also_unmapped(found, tables, place)


def near(name: str, known: Iterable[str]) -> str:
    """`` (did you mean …?)``, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


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
