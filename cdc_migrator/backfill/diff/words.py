"""The same definition in other words of the server. Decides only.

Before version 16 the server wrote every column of a view with its table; since then it leaves the
table out where a query has only one. And a definition that is read back from the server's own
words can be written otherwise the next time: a cast of an array becomes one of its elements, and
a nameless column of a UNION's later part gets a name that nobody sees. So what a dump brought
over may be worded otherwise than the source, and only once.
"""

from __future__ import annotations

import re

from cdc_migrator.model.parts import Catalog, Part

_BRIEF = 16
_SPELLED = frozenset({"view", "materialized view", "rule", "function", "procedure"})
_QUALIFIER = re.compile(r"""("(?:[^"]|"")+"|[a-z_][\w$]*)\.(?=["a-z_])""")


class Words:
    """Tells whether two texts of the two servers mean the same."""

    def __init__(self, source: Catalog, target: Catalog) -> None:
        self._older = 0 if source.major < target.major else 1
        self._straddle = min(source.major, target.major) < _BRIEF <= max(source.major, target.major)
        named = {part.name for part in source.parts.values() if part.kind == "schema"}
        self._schemas = named | {"pg_catalog", "information_schema"}

    def same(self, part: Part, attribute: str, source: str | None, target: str | None) -> bool:
        """Whether an attribute of `part` is alike on both sides.

        A text that names tables only on the older server is taken without them, if that makes
        it the newer one's: where the newer leaves tables out, there is only one to mean.
        """
        if source == target:
            return True
        if source is not None and target is not None:
            source, target = settled(source), settled(target)
            if source == target:
                return True
        spelled = self._straddle and attribute == "definition" and part.kind in _SPELLED
        if not spelled or source is None or target is None:
            return False
        pair = (source, target)
        return self._plain(pair[self._older]) == pair[1 - self._older]

    def _plain(self, text: str) -> str:
        return _QUALIFIER.sub(lambda m: m[0] if m[1] in self._schemas else "", text)


def settled(text: str) -> str:
    """A definition as the server words it when it has read it from its own words."""
    found = _CAST_ARRAY.search(text)
    while found:
        items = ", ".join(f"({item})::{found[2]}" for item in _items(found[1]))
        text = f"{text[: found.start()]}ARRAY[{items}]{text[found.end() :]}"
        found = _CAST_ARRAY.search(text, found.start() + 1)
    first, *later = _SET.split(text)
    return "".join([first, *(_NAMED.sub(_nameless, part) for part in later)])


# Elements without brackets of their own, so that the array has one dimension.
_QUOTED = r"'(?:[^']|'')*'"
_CAST_ARRAY = re.compile(rf"\(ARRAY\[((?:[^'\[\]]|{_QUOTED})*)\]\)::([a-z][\w. ]*)\[\]")
_ITEM = re.compile(rf"{_QUOTED}|[(),]|[^'(),]+")
_SET = re.compile(r"(\n *(?:UNION|INTERSECT|EXCEPT)(?: ALL)?\n)")
_NAMED = re.compile(rf"((?:NULL|{_QUOTED})::([a-z][a-z ]*)) AS (\w+|\"\w+\")(?=,?\n)")
# What a nameless cast is called: its type's own name, where that is not the one it is written by.
_OWN_NAMES = {
    "bigint": "int8",
    "integer": "int4",
    "smallint": "int2",
    "boolean": "bool",
    "real": "float4",
    "double precision": "float8",
    "character varying": "varchar",
    "character": "bpchar",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "time without time zone": "time",
    "time with time zone": "timetz",
}


def _items(text: str) -> list[str]:
    items, depth = [""], 0
    for piece in _ITEM.findall(text):
        depth += (piece == "(") - (piece == ")")
        if piece == "," and not depth:
            items.append("")
        else:
            items[-1] += piece
    return [item.strip() for item in items]


def _nameless(found: re.Match[str]) -> str:
    own = _OWN_NAMES.get(found[2], found[2])
    return found[1] if found[3].strip('"') == own else found[0]
