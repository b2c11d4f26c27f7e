"""The table of contents of a dump, and which of its entries to restore. Decides only.

An entry names its object by catalog and object id on the source; entries that have none (comments,
attachments, ownership of sequences) are known by the entries that they depend on.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

ObjectId = tuple[int, int]  # catalog's oid, object's oid

# Two words or more; all other descriptions are one word.
_LONG = (
    "ACCESS METHOD|CHECK CONSTRAINT|DEFAULT ACL|EVENT TRIGGER|FK CONSTRAINT|FOREIGN DATA WRAPPER|"
    "FOREIGN SERVER|FOREIGN TABLE|INDEX ATTACH|LARGE OBJECT|MATERIALIZED VIEW DATA|"
    "MATERIALIZED VIEW|OPERATOR CLASS|OPERATOR FAMILY|PROCEDURAL LANGUAGE|PUBLICATION TABLE|"
    "PUBLICATION TABLES IN SCHEMA|ROW SECURITY|SECURITY LABEL|SEQUENCE OWNED BY|SEQUENCE SET|"
    "SHELL TYPE|STATISTICS DATA|SUBSCRIPTION TABLE|TABLE ATTACH|TABLE DATA|"
    "TEXT SEARCH CONFIGURATION|TEXT SEARCH DICTIONARY|TEXT SEARCH PARSER|TEXT SEARCH TEMPLATE|"
    "USER MAPPING"
)
_LINE = re.compile(rf"(\d+); (\d+) (\d+) ({_LONG}|[A-Z]+) (.*)")
_DEPENDS = re.compile(r";\s+depends on: ([\d ]+)")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: its number in the dump, its object (None where it has none), its kind, the line
    by which ``pg_restore -L`` chooses it, and the numbers of the entries it depends on."""

    number: int
    object: ObjectId | None
    kind: str
    line: str
    depends: tuple[int, ...] = ()

    @property
    def of_public(self) -> bool:
        """Whether it says something of the schema that a new database has already."""
        return self.kind in ("COMMENT", "ACL") and self.label.endswith(" - SCHEMA public")

    @property
    def label(self) -> str:
        """Kind and name, for people; the owner's name ends the line."""
        return self.line.split(" ", 3)[3].rpartition(" ")[0]


def parse(listing: str) -> list[Entry]:
    """The entries of ``pg_restore --list --verbose``, in its order."""
    entries: list[Entry] = []
    for line in listing.splitlines():
        if found := _LINE.match(line):
            number, catalog, oid, kind, _ = found.groups()
            known = (int(catalog), int(oid)) if int(catalog) else None
            entries.append(Entry(int(number), known, kind, line))
        elif entries and (found := _DEPENDS.match(line)):
            last = entries[-1]
            depends = tuple(int(word) for word in found[1].split())
            entries[-1] = Entry(last.number, last.object, last.kind, last.line, depends)
    return entries


# They act at once, or on somebody else's behalf, and are for the operator to make.
_NEVER = frozenset({"EVENT TRIGGER", "SUBSCRIPTION", "PUBLICATION", "PUBLICATION TABLE"})


def without(
    entries: Collection[Entry],
    excluded: Collection[ObjectId],
    never: Collection[str] = _NEVER,
) -> list[Entry]:
    """The entries that are to be on the target: all but those of `excluded` objects.

    Args:
        never: kinds that are left out, whatever they are.
    """
    gone: set[int] = set()
    kept = []
    for entry in entries:
        nameless = entry.object is None
        if (
            entry.kind in never
            or (entry.object is not None and entry.object in excluded)
            or (nameless and any(number in gone for number in entry.depends))
        ):
            gone.add(entry.number)
        else:
            kept.append(entry)
    return kept


def acting(entries: Collection[Entry]) -> list[Entry]:
    """What would act on rows that are applied: foreign keys, triggers, rules but views' queries."""
    return [
        entry
        for entry in entries
        if entry.kind in ("FK CONSTRAINT", "TRIGGER")
        or (entry.kind == "RULE" and not entry.label.endswith(" _RETURN"))
    ]


def remaining(entries: Collection[Entry], there: Collection[ObjectId], post: bool) -> list[Entry]:
    """What is still to be restored where the objects `there` exist already.

    An entry without an object goes with what it depends on. After the data (`post`) such entries
    are repeated: attaching an index or writing a comment again changes nothing. So are those of
    the schema that every database has: the dump does not make it, and has no entry for it.
    """
    missing = {e.number for e in entries if e.object is not None and e.object not in there}
    return [
        entry
        for entry in entries
        if entry.number in missing
        or (
            entry.object is None
            and (post or entry.of_public or any(n in missing for n in entry.depends))
        )
    ]


def without_renamed(entries: Collection[Entry], renamed: Collection[ObjectId]) -> list[Entry]:
    """The entries but for keys and indexes that the target has already under `renamed` names.

    What only makes sense for them (a comment, the attachment of a partition's index) goes, too,
    and so do the partitions' own indexes: they are attached to what is there.
    """
    known = {e.number: e for e in entries}
    gone = {e.number for e in entries if e.object is not None and e.object in renamed}
    while True:
        attached = {
            number
            for e in entries
            if e.kind == "INDEX ATTACH" and gone.intersection(e.depends)
            for number in e.depends
            if number in known and known[number].kind in ("INDEX", "CONSTRAINT")
        }
        if attached <= gone:
            break
        gone |= attached
    return [
        e
        for e in entries
        if e.number not in gone and not (e.object is None and gone.intersection(e.depends))
    ]
