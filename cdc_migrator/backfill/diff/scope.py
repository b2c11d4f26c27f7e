"""What of two schemas is compared, and in which order it can be made. Decides only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from cdc_migrator.model.parts import Catalog, Key, Part

# Nothing but their presence is compared, and only the dump makes them.
ONLY_SEEN = (
    *("collation", "conversion", "text search parser", "text search template"),
    *("text search dictionary", "text search configuration"),
    *("operator", "operator family", "operator class", "cast"),
)
_RANK = {
    kind: rank
    for rank, kind in enumerate(
        (
            "schema",
            "extension",
            "enumeration",
            "domain",
            "composite type",
            "range type",
            "attribute",
            "function",
            "procedure",
            "aggregate",
            *ONLY_SEEN,
            "sequence",
            "table",
            "column",
            "view",
            "materialized view",
            "view column",
            "constraint",
            "index",
            "statistics",
            "rule",
            "trigger",
            "policy",
            "default privileges",
        )
    )
}
_FOREIGN_KEY = len(_RANK)


def within(catalog: Catalog, schemas: Collection[str]) -> Catalog:
    """The parts that live in these schemas, and whatever those cannot be without.

    Extensions are always in: they are made for the database as a whole. So are privileges that
    a role gives by default in all schemas.
    """
    chosen = {
        key
        for key, part in catalog.parts.items()
        if part.schema in schemas
        or part.kind == "extension"
        or (part.kind == "default privileges" and part.schema is None)
        or (part.kind == "schema" and part.facts["schema"] in schemas)
    }
    owned: dict[str, set[Key]] = {}
    for part in catalog.parts.values():
        if part.owner is not None:
            owned.setdefault(part.owner, set()).add(part.key)
    waiting = list(chosen)
    while waiting:
        key = waiting.pop()
        more = set(catalog.depends[key])
        if catalog.parts[key].owner is None:
            more |= owned.get(catalog.parts[key].name, set())
        waiting += more - chosen
        chosen |= more
    return Catalog(
        {key: part for key, part in catalog.parts.items() if key in chosen},
        {key: others & chosen for key, others in catalog.depends.items() if key in chosen},
        catalog.major,
    )


def places(catalog: Catalog) -> Mapping[Key, int]:
    """Each part's place in an order in which all of them can be made.

    Where parts need each other in a circle, their kinds decide.
    """
    placed: dict[Key, int] = {}
    entered: set[Key] = set()

    def ordered(keys: Iterable[Key]) -> list[Key]:
        return sorted(keys, key=lambda key: (rank(catalog, key), key), reverse=True)

    for first in reversed(ordered(catalog.parts)):
        stack = [(first, False)]
        while stack:
            key, done = stack.pop()
            if done:
                placed[key] = len(placed)
            elif key not in entered:
                entered.add(key)
                stack.append((key, True))
                stack += [(k, False) for k in ordered(catalog.depends[key]) if k not in entered]
    return placed


def rank(catalog: Catalog, key: Key) -> int:
    """The place of a part's kind among the kinds."""
    if key[0] == "constraint" and catalog.parts[key].facts["type"] == "f":
        return _FOREIGN_KEY
    return _RANK[key[0]]


def needed_by(catalog: Catalog) -> Mapping[Key, set[Key]]:
    """For each part those that cannot be without it."""
    turned: dict[Key, set[Key]] = {key: set() for key in catalog.parts}
    for key, others in catalog.depends.items():
        for other in others:
            turned[other].add(key)
    return turned


def dependents(
    catalog: Catalog,
    needed: Mapping[Key, set[Key]],
    roots: Collection[Key],
    falls: Callable[[Part], bool],
) -> set[Key]:
    """The parts for which `falls` holds and that cannot be without `roots`, or without each other.

    What belongs to such a part is among them, of whatever kind.

    Args:
        needed: as `needed_by` has it.
    """
    found: set[Key] = set()
    waiting = list(roots)
    while waiting:
        key = waiting.pop()
        part = catalog.parts[key]
        for other in needed[key] - found:
            belongs = part.owner is None and catalog.parts[other].owner == part.name
            if other not in roots and (belongs or falls(catalog.parts[other])):
                found.add(other)
                waiting.append(other)
    return found
