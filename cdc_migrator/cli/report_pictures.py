"""The report's pictures, as places on lines of a thousand units: life so far, and stalls. Pure.

Text stands beside them in the page, so that it stays legible however narrow the page is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cdc_migrator.cli import report_words as words

WIDTH = 1000
_LEAST = 4.0  # a bar that is too short to be seen is drawn so wide
_ATTEMPTS = 12


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of a line, with its style and what it says where one points at it."""

    start: float
    width: float
    style: str
    title: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what it is, its bars, and how long it took."""

    label: str
    bars: tuple[Bar, ...]
    told: str


def life(document: Mapping[str, Any]) -> list[Row]:
    """A line for each phase as it was entered, then one for each of the last attempts."""
    began, until = document["summary"]["started_at"], document["made_at"]
    if began is None:
        return []
    entered = [
        (str(one["details"].get("phase")), one["at"])
        for one in document["timeline"]
        if one["action"] == "phase" and one["side"] == "target"
    ]
    rows = []
    for number, (phase, at) in enumerate(entered):
        ends = entered[number + 1][1] if number + 1 < len(entered) else until
        rows.append(_row(phase, at, ends, began, until, "phase"))
    for one in (document["attempts"] or [])[-_ATTEMPTS:]:
        style = "tried" if one["rehearsal"] or one["opened_at"] is None else one["direction"]
        ends = one["ended_at"] or until
        row = _row(words.attempt(one), one["started_at"], ends, began, until, style)
        rows.append(Row(row.label, row.bars, f"{row.told}, {one['state']}"))
    return rows


def _row(
    label: str, at: datetime, ends: datetime, began: datetime, until: datetime, style: str
) -> Row:
    whole = max((until - began).total_seconds(), 0.001)
    start = WIDTH * (at - began).total_seconds() / whole
    width = WIDTH * (ends - at).total_seconds() / whole
    told = words.span(max((ends - at).total_seconds(), 0.0))
    return Row(label, (_bar(start, width, style, f"{words.when(at)}, {told}"),), told)


def stalls(attempts: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A line for each attempt that kept writers waiting, cut into its steps."""
    waited = [one for one in attempts if one["stall_seconds"] is not None][-_ATTEMPTS:]
    longest = max((one["stall_seconds"] for one in waited), default=0.0) or 0.001
    rows = []
    for one in waited:
        bars: list[Bar] = []
        place = 0.0
        for step in one["steps"]:
            if not step["stalls"]:
                continue
            width = WIDTH * step["seconds"] / longest
            title = f"{step['state']}: {words.span(step['seconds'])}"
            bars.append(_bar(place, min(width, WIDTH - place), f"step-{step['state']}", title))
            place = min(place + width, WIDTH)
        rest = WIDTH * one["stall_seconds"] / longest - place
        if rest > _LEAST:
            bars.append(_bar(place, rest, "step-rest", "writing down, undoing"))
        at_most = "" if one["stall_exact"] else "at most "
        rows.append(
            Row(words.attempt(one), tuple(bars), at_most + words.span(one["stall_seconds"]))
        )
    return rows


def _bar(start: float, width: float, style: str, title: str) -> Bar:
    seen = max(width, _LEAST)
    return Bar(round(min(max(start, 0.0), WIDTH - seen), 1), round(seen, 1), style, title)
