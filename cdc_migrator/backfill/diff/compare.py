"""Compare two schemas part by part. Decides only.

What is the whole of a missing or surplus part is told once, at that part. A constraint or index
that is there under another name is one difference of its name, not one too few and one too many.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from cdc_migrator.backfill.diff import grants, severity
from cdc_migrator.backfill.diff.mend import Mender
from cdc_migrator.backfill.diff.scope import ONLY_SEEN, dependents, needed_by
from cdc_migrator.backfill.diff.words import Words
from cdc_migrator.model.parts import Catalog, Difference, Key, Part, Severity, Statement

_LATER = "comes after the load"
DEFERRED = "deferred: made when the target is opened"
_DUMPED = "`cdc-migrator schema apply pre-data` makes it"
_ORDER = "column order"


@dataclass(frozen=True, slots=True)
class _Pair:
    source: Part | None
    target: Part | None

    @property
    def any(self) -> Part:
        part = self.source or self.target
        assert part is not None
        return part


def compare(
    source: Catalog, target: Catalog, *, loaded: bool, deferred: bool = False
) -> list[Difference]:
    """Every difference, by table and then by kind and name.

    Args:
        loaded: the load has ended, so that keys, indexes and triggers must be there; before
            that, their absence is to be expected.
        deferred: so is that of what acts on rows (see `acts`).
    """
    mender, words = Mender(source, target), Words(source, target)
    pairs = _pairs(source, target)
    later = set() if loaded else _later(source)
    found = []
    for pair in pairs:
        for one in _differences(pair, mender, words):
            told = one if loaded else _early(one, pair, later)
            missing = one.attribute == "presence" and one.target is None
            if deferred and missing and acts(pair.any):
                told = replace(told, severity=Severity.INFO, note=DEFERRED)
            found.append(told)
    return sorted(found, key=lambda d: (d.table or "", d.table is not None, d.kind, d.object))


def acts(part: Part) -> bool:
    """Whether this part of a schema acts on rows that are written."""
    return part.kind in ("trigger", "rule") or (
        part.kind == "constraint" and part.facts["type"] == "f"
    )


def counts(differences: list[Difference]) -> bool:
    """Whether anything is told that is more than information."""
    return any(one.severity is not Severity.INFO for one in differences)


def _pairs(source: Catalog, target: Catalog) -> list[_Pair]:
    others = dict(renamed(source, target))
    taken = set(others.values())
    pairs = [
        _Pair(part, target.parts.get(others.get(key, key))) for key, part in source.parts.items()
    ]
    pairs += [
        _Pair(None, part)
        for key, part in target.parts.items()
        if key not in source.parts and key not in taken
    ]
    return [pair for pair in pairs if not _told_elsewhere(pair, source, target)]


def renamed(source: Catalog, target: Catalog) -> Iterator[tuple[Key, Key]]:
    """Constraints and indexes that are on both sides alike but for their names."""
    there: dict[tuple[str, str | None, str], list[Key]] = {}
    for key, part in target.parts.items():
        if part.kind in ("constraint", "index") and key not in source.parts:
            alike = (part.kind, part.owner, part.attributes["definition"])
            there.setdefault(alike, []).append(key)
    for key, part in source.parts.items():
        if part.kind in ("constraint", "index") and key not in target.parts:
            left = there.get((part.kind, part.owner, part.attributes["definition"]))
            if left:
                yield key, left.pop(0)


def _told_elsewhere(pair: _Pair, source: Catalog, target: Catalog) -> bool:
    """Whether the difference is that of the owner, or of the table that a column comes from."""
    owner = pair.any.owner
    if owner is None:
        return False
    if _has(source, owner) != _has(target, owner):
        return True
    if pair.any.facts.get("inherited") and (pair.source is None or pair.target is None):
        one, other = source.parts.get(("table", owner)), target.parts.get(("table", owner))
        return bool(
            one and other and one.attributes.get("parent") == other.attributes.get("parent")
        )
    return False


def _has(catalog: Catalog, owner: str) -> bool:
    return any((kind, owner) in catalog.parts for kind in _OWNERS)


_OWNERS = ("table", "view", "materialized view", "domain", "composite type")


def _differences(pair: _Pair, mender: Mender, words: Words) -> Iterator[Difference]:
    one, other = pair.source, pair.target
    if one is None:
        assert other is not None
        if other.kind != "view column":
            owned = mender.owned.get(other.owner or "", ())
            keyed = any(part.facts.get("type") == "p" for part in owned)
            severe = severity.extra(other, _enforced(owned), keyed)
            yield _difference(other, "presence", None, "there", severe, mender.remove(other))
        return
    if other is None:
        if one.kind != "view column":
            told = _difference(
                one, "presence", "there", None, severity.missing(one), mender.make(one)
            )
            yield replace(told, note=_DUMPED) if one.kind in ONLY_SEEN else told
        return
    if one.key != other.key:
        yield _difference(
            one, "name", one.name, other.name, Severity.INFO, mender.rename(one, other)
        )
    for attribute in sorted(one.attributes.keys() | other.attributes.keys()):
        said, found = one.attributes.get(attribute), other.attributes.get(attribute)
        if words.same(one, attribute, said, found) or _implied(one, other, attribute):
            continue
        if attribute not in _PARTITIONS_OWN and _inherited(one, other):
            continue
        yield _difference(
            one,
            attribute,
            said,
            found,
            severity.changed(one, other, attribute),
            mender.change(one, other, attribute),
        )
    if "grants" in one.facts and "grants" in other.facts and grants.differ(one, other):
        said, found = (
            grants.text(side.facts["grants"], side.facts["role"]) for side in (one, other)
        )
        statements = mender.change(one, other, "grants")
        yield _difference(one, "grants", said, found, Severity.WARN, statements)
    if one.kind in ("table", "composite type"):
        yield from _order(one, mender)


# What a column of a partition has for itself; the rest is its parent's.
_PARTITIONS_OWN = ("default", "not null", "comment")


def _inherited(one: Part, other: Part) -> bool:
    return bool(one.facts.get("inherited") and other.facts.get("inherited"))


def _implied(one: Part, other: Part, attribute: str) -> bool:
    """Whether the difference goes without saying, another one of the same part being told."""

    def differs(name: str) -> bool:
        return one.attributes.get(name) != other.attributes.get(name)

    match one.kind, attribute:
        case "column", "identity options":
            # They follow the type, and are there or not with the identity.
            return differs("identity") or differs("type")
        case "column", "generated kind":
            return differs("generated")
        case "column", "default":
            # It becomes a generated column, or one with an identity: said there.
            return "generated" in one.attributes or "identity" in one.attributes
        case (("function" | "procedure" | "aggregate"), "definition"):
            return differs("signature")
        case "table", ("partition bound" | "partition key"):
            return differs("parent" if attribute == "partition bound" else "form")
        case "sequence", ("minimum" | "maximum"):
            return differs("type")
    return False


def _order(one: Part, mender: Mender) -> Iterator[Difference]:
    """Columns that both sides have, in another order: told for completeness."""
    said, found = (
        _columns(mender.owned.get(one.name, ())),
        _columns(mender.owned_there.get(one.name, ())),
    )
    ours = [name for name in said if name in found]
    theirs = [name for name in found if name in said]
    if ours != theirs:
        told = _difference(one, _ORDER, ", ".join(ours), ", ".join(theirs), Severity.INFO, ())
        yield replace(told, note="rows travel by the names of columns; nothing to mend")


def _columns(owned: Sequence[Part]) -> list[str]:
    columns = [part for part in owned if part.kind in ("column", "attribute")]
    columns.sort(key=lambda part: int(part.facts["place"]))
    return [part.facts["column"] for part in columns]


def _enforced(owned: Sequence[Part]) -> set[str]:
    return {part.facts["unique"] for part in owned if part.facts.get("unique") is not None}


def _later(source: Catalog) -> set[Key]:
    """What the source makes after the rows: keys, indexes, triggers, and what cannot be without
    them, such as a view that groups by a primary key."""
    roots = [key for key, part in source.parts.items() if part.facts.get("after rows")]
    living = dependents(source, needed_by(source), roots, lambda part: part.kind in _LIVING)
    return living.union(roots)


_LIVING = frozenset({"view", "materialized view", "function", "procedure", "aggregate"})


def _early(one: Difference, pair: _Pair, later: Collection[Key]) -> Difference:
    """The same before the load has ended: what is made after the rows may still be missing."""
    after = pair.any.key in later and one.attribute == "presence" and one.target is None
    on = one.kind == "table" and one.attribute.startswith("row security") and one.target is None
    empty = pair.target is not None and pair.target.facts.get("placeholder")
    if after or on or (empty and one.attribute == "definition"):
        return replace(one, severity=Severity.INFO, note=_LATER)
    if one.attribute == "populated":
        return replace(one, severity=Severity.INFO, note="to be refreshed after the load")
    return one


def _difference(
    part: Part,
    attribute: str,
    source: str | None,
    target: str | None,
    severe: Severity,
    statements: tuple[Statement, ...],
) -> Difference:
    table = part.owner if part.owner is not None else part.name if part.kind == "table" else None
    return Difference(part.kind, part.name, table, attribute, source, target, severe, statements)
