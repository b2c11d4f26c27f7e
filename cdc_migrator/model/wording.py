"""How many things are named in one sentence."""

from __future__ import annotations

from collections.abc import Iterable

_NAMED = 3


def few(things: Iterable[object], between: str = ", ") -> str:
    """The first three, and how many more there are."""
    words = [str(one) for one in things]
    more = f" and {len(words) - _NAMED} more" if words[_NAMED:] else ""
    return between.join(words[:_NAMED]) + more
