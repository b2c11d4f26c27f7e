"""How things, times and sizes are told in a sentence."""

from __future__ import annotations

from collections.abc import Iterable

_NAMED = 3


def few(things: Iterable[object], between: str = ", ") -> str:
    """The first three, and how many more there are."""
    words = [str(one) for one in things]
    more = f" and {len(words) - _NAMED} more" if words[_NAMED:] else ""
    return between.join(words[:_NAMED]) + more


def lasting(seconds: float) -> str:
    """``85 ms``, ``12.3 s``, ``4 min 5 s``, ``2 h 3 min``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def amount(size: float) -> str:
    """Bytes as ``812 B``, ``3.4 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
