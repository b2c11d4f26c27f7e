"""The same definition in the words of two server versions. Decides only.

Before version 16 the server wrote every column of a view with its table; since then it leaves the
table out where a query has only one.
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
        spelled = self._straddle and attribute == "definition" and part.kind in _SPELLED
        if not spelled or source is None or target is None:
            return False
        pair = (source, target)
        return self._plain(pair[self._older]) == pair[1 - self._older]

    def _plain(self, text: str) -> str:
        return _QUALIFIER.sub(lambda m: m[0] if m[1] in self._schemas else "", text)
