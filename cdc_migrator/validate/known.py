"""Whether what rules name is there: tables, columns, keys. Pure; every fault is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from cdc_migrator.config.rules import Aggregate, Freshness, Orphans, Rule, Spot, Types
from cdc_migrator.databases.postgres.relations import ForeignKey, Relation
from cdc_migrator.model.tables import TableName
from cdc_migrator.validate.expressions import MOMENTS

Relations = Mapping[str, Relation]


@dataclass(frozen=True, slots=True)
class Wrong:
    """A rule by its place in the list, its field, and what is wrong with it."""

    rule: int
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Catalogs:
    """Both sides' tables, by ``schema.table``.

    Attributes:
        moved: tables of the migration with the target's name of each; partitions and the tables
            that they are part of count both.
        own: of tables whose rows become others, what is theirs on the target, by the names that
            the migration has for them; `source` has them as they should be there.
        lost: of these and those beside them the foreign keys that cannot be followed.
    """

    source: Relations
    target: Relations
    moved: Mapping[str, TableName]
    own: Relations
    lost: Mapping[str, tuple[str, ...]]

    def on(self, target: bool, table: str) -> Relation:
        """A side's table, by the source's name. Raises KeyError."""
        if not target:
            return self.source[table]
        if table in self.own:
            return self.own[table]
        return self.target[str(self.moved.get(table, table))]


def wrong(rules: Sequence[Rule], known: Catalogs) -> Iterator[Wrong]:
    """What is wrong with the rules, in their order."""
    for place, rule in enumerate(rules):
        for field, message in _faults(rule, known):
            yield Wrong(place, field, message)


def _faults(rule: Rule, known: Catalogs) -> Iterator[tuple[str, str]]:
    if isinstance(rule, Aggregate):
        return
    if rule.table not in known.moved:
        yield "table", _unknown(rule.table, "table of the migration", known.moved)
        return
    for target in (False, True):
        side = "target" if target else "source"
        try:
            on = known.on(target, rule.table)
        except KeyError:
            yield "table", f"the {side} has no such table"
            continue
        for field, names in _columns_of(rule):
            for name in names:
                if on.column(name) is None:
                    have = [one.name for one in on.columns]
                    yield field, _unknown(name, f"column of {rule.table} on the {side}", have)
    on = known.source.get(rule.table) or known.on(True, rule.table)
    if isinstance(rule, Spot):
        yield from _spot(rule, on)
    if isinstance(rule, Freshness):
        yield from _dated(rule.column, on, "column")
    if isinstance(rule, Orphans):
        yield from _orphans(rule, known)


def _columns_of(rule: Rule) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "columns", tuple(getattr(rule, "columns", ()))
    for field in ("column", "by"):
        if name := getattr(rule, field, None):
            yield field, (str(name),)


def _spot(rule: Spot, on: Relation) -> Iterator[tuple[str, str]]:
    if not on.key:
        yield "table", "has no primary key by which rows could be found on both sides"
    for key in rule.keys:
        given = len(key) if isinstance(key, tuple) else 1
        if on.key and given != len(on.key):
            yield "keys", f"a key of {rule.table} is ({', '.join(on.key)})"
            break
    if rule.by is not None:
        yield from _dated(rule.by, on, "by")


def _dated(name: str, on: Relation, field: str) -> Iterator[tuple[str, str]]:
    column = on.column(name)
    if column is not None and column.base_type not in MOMENTS:
        yield field, f"{name} is no column of dates or times"


def _orphans(rule: Orphans, known: Catalogs) -> Iterator[tuple[str, str]]:
    if rule.references is None:
        for key in known.lost.get(rule.table, ()):
            told = f"the foreign key {key} does not survive the mapping"
            yield "table", f"{told}: state columns and references, one rule for each foreign key"
        if not declared(rule.table, known) and rule.table not in known.lost:
            yield "table", "no foreign key is declared: state columns and references"
        return
    if rule.references not in known.source:
        yield "references", _unknown(rule.references, "table of the source", known.source)
        return
    other = known.source[rule.references]
    referenced = rule.referenced or other.key
    for name in referenced:
        if other.column(name) is None:
            have = [one.name for one in other.columns]
            yield "referenced", _unknown(name, f"column of {rule.references}", have)
    if len(referenced) != len(rule.columns):
        yield "columns", f"{rule.references} is referred to by ({', '.join(referenced)})"


def declared(table: str, known: Catalogs) -> list[ForeignKey]:
    """The foreign keys that either side declares, each once."""
    found: dict[tuple[object, ...], ForeignKey] = {}
    for target in (False, True):
        try:
            there = known.on(target, table).foreign_keys
        except KeyError:
            continue
        for one in there:
            found.setdefault((one.columns, one.table, one.referenced), one)
    return list(found.values())


def stated(rule: Orphans, known: Catalogs) -> list[ForeignKey]:
    """The foreign keys that a rule is about."""
    if rule.references is None:
        return declared(rule.table, known)
    other = known.source[rule.references]
    return [ForeignKey("", rule.columns, other.name, rule.referenced or other.key)]


def columns_of_types(rule: Types, on: Relation) -> tuple[str, ...]:
    """The columns whose type a rule is about."""
    return rule.columns or tuple(one.name for one in on.columns)


def _unknown(name: str, what: str, known: Mapping[str, object] | Sequence[str]) -> str:
    near = get_close_matches(name, list(known), n=1, cutoff=0.5)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"{name} is no {what}{meant}"
