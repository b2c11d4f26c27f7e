"""The journal as a file that can be verified on another machine: JSON lines, a header first. Pure.

The header says which migration and side it is of, how many entries follow and the hash of the last
one, under a hash of its own. Every line has exactly one form (keys sorted, no blanks), and a line
of any other form is told: so no byte can change without being found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from cdc_migrator.control import chain
from cdc_migrator.control.chain import Checked, Entry, Fault

VERSION = 1


@dataclass(frozen=True, slots=True)
class Header:
    """The first line; `head`: hash of the last entry, None where none follows."""

    migration: str
    side: str
    exported_at: datetime
    entries: int
    head: str | None


@dataclass(frozen=True, slots=True)
class File:
    """What was found in a file.

    Attributes:
        header: None where the first line is not one.
        entries: as far as the lines can be read.
    """

    header: Header | None
    entries: tuple[Entry, ...]
    checked: Checked


class _Unreadable(ValueError):
    """A line that is not one of ours."""


def dump(migration: str, side: str, at: datetime, entries: Sequence[Entry]) -> Iterator[bytes]:
    """The file's lines, each with its line break."""
    head = entries[-1].hash if entries else None
    yield _line(_header(Header(migration, side, at, len(entries), head)))
    for entry in entries:
        yield _line(_entry(entry))


def verify(content: bytes, known: str | None = None) -> File:
    """Whether a file is whole and its chain, too. Never raises, whatever is in it.

    Args:
        known: as in `chain.check`.
    """
    *lines, rest = content.split(b"\n")
    header, broken = None, None
    found: list[Entry] = []
    try:
        header = _read_header(lines[0] if lines else b"")
        for number, line in enumerate(lines[1:], 2):
            try:
                found.append(_read_entry(line))
            except _Unreadable:
                broken = Fault(len(found) + 1, f"line {number} is not an entry as it was written")
                break
    except _Unreadable:
        broken = Fault(None, "the first line is not a header as it was written")
    if broken is None and rest:
        broken = Fault(None, "the last line was cut off")
    told = chain.check(found, None if broken else known)
    fault = told.fault or broken or _against(header, told)
    return File(header, tuple(found), Checked(told.entries, told.head, fault))


def _against(header: Header | None, found: Checked) -> Fault | None:
    """What the header promises and the entries do not keep."""
    if header is None:
        return None
    if found.entries != header.entries:
        return Fault(None, f"{found.entries} entries follow, the header speaks of {header.entries}")
    if found.head != header.head:
        return Fault(None, "the last entry is not the one that the header names")
    return None


def _line(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _header(header: Header) -> dict[str, Any]:
    content = {
        "journal": VERSION,
        "migration": header.migration,
        "side": header.side,
        "exported_at": _instant(header.exported_at),
        "entries": header.entries,
        "head": header.head,
    }
    return {**content, "hash": hashlib.sha256(_line(content)).hexdigest()}


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "number": entry.number,
        "at": _instant(entry.at),
        "actor": entry.actor,
        "action": entry.action,
        "details": entry.details,
        "previous_hash": entry.previous,
        "hash": entry.hash,
    }


def _read_header(line: bytes) -> Header:
    known = _document(line)
    try:
        header = Header(
            known["migration"],
            known["side"],
            datetime.fromisoformat(known["exported_at"]),
            known["entries"],
            known["head"],
        )
        same = _line(_header(header)) == line + b"\n"
    except (KeyError, TypeError, ValueError, OverflowError):
        raise _Unreadable from None
    if not same:
        raise _Unreadable
    return header


def _read_entry(line: bytes) -> Entry:
    known = _document(line)
    try:
        entry = Entry(
            known["number"],
            datetime.fromisoformat(known["at"]),
            known["actor"],
            known["action"],
            known["details"],
            known["previous_hash"],
            known["hash"],
        )
        same = _line(_entry(entry)) == line + b"\n" and type(entry.number) is int
    except (KeyError, TypeError, ValueError, OverflowError):
        raise _Unreadable from None
    if not same:
        raise _Unreadable
    return entry


def _document(line: bytes) -> dict[str, Any]:
    try:
        known = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise _Unreadable from None
    if not isinstance(known, dict):
        raise _Unreadable
    return known
