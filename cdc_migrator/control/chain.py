"""The journal's entries as a chain of hashes, and whether it is whole. Pure: from anywhere.

Each entry's hash covers its content and the hash of the entry before it, so an entry that was
altered, removed or moved shows at its place. That the end was cut off shows only to somebody who
knows the hash of an entry that was there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

FIRST = "0" * 64  # stands for the hash before the first entry's


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: who did what, when; `previous` is the hash of the entry before it."""

    number: int
    at: datetime
    actor: str
    action: str
    details: Any
    previous: str
    hash: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Where a chain is broken: at which entry, by its number (None: at its end), and how."""

    entry: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found of a chain.

    Attributes:
        entries: how many there are, right or wrong.
        head: the hash of the last one, as it says itself; None where there is none.
        fault: the first one; None: the chain is whole.
    """

    entries: int
    head: str | None
    fault: Fault | None


def digest(previous: str, number: int, at: datetime, actor: str, action: str, details: Any) -> str:
    """The hash of an entry.

    Raises TypeError: what is in `details` cannot have been written by us.
    """
    instant = f"{at.timestamp():.6f}"
    content = [previous, number, instant, actor, action, details]
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def check(entries: Iterable[Entry], known: str | None = None) -> Checked:
    """Whether the chain is whole, from its first entry on.

    Args:
        known: the hash of an entry that was there once; then it must still be.
    """
    previous, expected, count = FIRST, 1, 0
    fault: Fault | None = None
    seen = known is None
    for entry in entries:
        count += 1
        seen = seen or entry.hash == known
        if fault is None:
            fault = _fault(entry, expected, previous)
        previous, expected = entry.hash, entry.number + 1
    if fault is None and not seen:
        fault = Fault(
            None,
            f"no entry has the hash {known}: the end was cut off, or all was written anew since",
        )
    return Checked(count, previous if count else None, fault)


def _fault(entry: Entry, expected: int, previous: str) -> Fault | None:
    if entry.number > expected:
        missing = f"{expected}" if entry.number == expected + 1 else f"{expected} and later"
        return Fault(expected, f"entry {missing} is missing before entry {entry.number}")
    if entry.number < expected:
        return Fault(
            entry.number, f"entry {entry.number} stands where entry {expected} was to follow"
        )
    if entry.previous != previous:
        return Fault(
            entry.number, f"entry {entry.number} does not follow the entry that stands before it"
        )
    if entry.hash != _right(entry):
        return Fault(entry.number, f"entry {entry.number} was altered after it was written")
    return None


def _right(entry: Entry) -> str | None:
    try:
        return digest(
            entry.previous, entry.number, entry.at, entry.actor, entry.action, entry.details
        )
    except TypeError:
        return None
