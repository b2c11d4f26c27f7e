"""What a Java stack trace says, without what it may quote: rows' values and secrets."""

from __future__ import annotations

import re

_FRAME = re.compile(r"^\s*(at |\.\.\. \d+ more)")
_QUOTING = re.compile(
    r"\{.*|(Detail|Where|Hint):.*|=\([^)]*\)"
    r"|(?<=syntax for )[^\"]*\".*|(?<=value )\".*|(?<=literal: )\".*"
    r"|(?<=password)\s*[=:]\s*\S+",
    re.IGNORECASE,
)
_LINE, _LINES = 300, 6


def summary(trace: str) -> str:
    """Its chain of reasons, without frames and without record contents.

    What follows a brace, a ``DETAIL``, ``Key (…)=`` or a value that PostgreSQL refuses can be a
    row's: it is cut off.
    """
    reasons: list[str] = []
    for line in trace.splitlines():
        if not line.strip() or _FRAME.match(line):
            continue
        short = _QUOTING.sub("…", line.strip())[:_LINE]
        if not reasons or reasons[-1] != short:
            reasons.append(short)
    return "; ".join(reasons[:_LINES])
