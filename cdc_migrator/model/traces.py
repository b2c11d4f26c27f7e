"""What a stack trace says, Java's or our own, without what it may quote: rows' values, secrets."""

from __future__ import annotations

import re
import traceback

_FRAME = re.compile(r"^\s*(at |\.\.\. \d+ more)")
_QUOTING = re.compile(
    r"\{.*|(Detail|Where|Hint):.*|=\([^)]*\)"
    r"|(?<=syntax for )[^\"]*\".*|(?<=value )\".*|(?<=literal: )\".*"
    r"|(?<=password)\s*[=:]\s*\S+",
    re.IGNORECASE,
)
_LINE, _LINES = 300, 6
_CHAINED = 10


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


_RECORD = re.compile(r"^\d{4}-\d\d-\d\dT\S+ (?P<level>[A-Z]+) ")


def noteworthy(log: str) -> str:
    """The warnings and errors of a Java process's log, each as its `summary` in one line."""
    records: list[list[str]] = []
    for line in log.splitlines():
        if _RECORD.match(line):
            records.append([line])
        elif records:
            records[-1].append(line)
    told = []
    for record in records:
        found = _RECORD.match(record[0])
        if found and found["level"] in ("WARN", "ERROR", "FATAL"):
            told.append(summary("\n".join(record)))
    return "".join(f"{one}\n" for one in told)


def chain(error: BaseException) -> str:
    """Where an error came from: the frames of it and of what caused it, each with its kind.

    Without their texts: a server's error quotes the row that it refuses.
    """
    told: list[str] = []
    current: BaseException | None = error
    while current is not None and len(told) < _CHAINED:
        kind = type(current)
        frames = "".join(traceback.format_tb(current.__traceback__))
        told.append(f"{frames}{kind.__module__}.{kind.__qualname__}\n")
        # Also what was suppressed: who asks for a trace wants to see it.
        current = current.__cause__ or current.__context__
    return "which led to\n".join(reversed(told))
