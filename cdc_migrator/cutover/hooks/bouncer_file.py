"""One database's line in PgBouncer's file: found, and replaced without touching another byte.

The file is replaced in one step, with the mode and the owner that it has. A copy from before stays
beside it for as long as the line is changed: it says what the line was.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_SECTION = re.compile(rb"\s*\[([^\]]*)\]\s*")
# A name, plain or in double quotes; the value is all that follows on the line.
_ENTRY = re.compile(rb'(\s*("(?:[^"]|"")*"|[^\s=;#"]+)\s*=[ \t]*)([^\r\n]*?)([ \t]*\r?\n?)')
_PAIR = re.compile(r"\s*(\w+)\s*=\s*('(?:[^']|'')*'|[^\s']*)")
_PLAIN = re.compile(r"[^\s'=]+")


class Unfit(ValueError):
    """The file or its line is not such that it can be changed safely; the text says why."""


@dataclass(frozen=True, slots=True)
class Line:
    """A file's content around the value of one database's line."""

    before: bytes
    value: str
    after: bytes

    def saying(self, value: str) -> bytes:
        """The content with this value in its place."""
        return self.before + value.encode() + self.after


def find(content: bytes, database: str) -> Line:
    """The database's line, in ``[databases]`` or in a file that is included there.

    Raises:
        Unfit: it is not there exactly once.
    """
    place, found = 0, []
    section = b"databases"  # an included file may begin in the middle of the section
    for line in content.splitlines(keepends=True):
        if heading := _SECTION.fullmatch(line):
            section = heading[1].strip().lower()
        elif section == b"databases" and (entry := _named(line, database)):
            found.append((place + entry.start(3), place + entry.end(3)))
        place += len(line)
    if len(found) != 1:
        raise Unfit(f"has {len(found) or 'no'} lines of the database {database!r}")
    ((start, end),) = found
    try:
        return Line(content[:start], content[start:end].decode(), content[end:])
    except UnicodeDecodeError:
        raise Unfit(f"has a line of {database!r} that is not UTF-8") from None


def _named(line: bytes, database: str) -> re.Match[bytes] | None:
    """The line's parts, where it is this database's."""
    entry = _ENTRY.fullmatch(line)
    if entry is None:
        return None
    name = entry[2].decode(errors="replace")
    if name.startswith('"'):
        name = name[1:-1].replace('""', '"')
    return entry if name == database else None


def pairs(value: str) -> dict[str, str]:
    """What a line says, by name.

    Raises:
        Unfit: it is not a list of ``name=value``.
    """
    found, place = {}, 0
    while value[place:].strip():
        pair = _PAIR.match(value, place)
        if pair is None:
            raise Unfit("has a line that is not a list of name=value")
        text = pair[2]
        found[pair[1]] = text[1:-1].replace("''", "'") if text.startswith("'") else text
        place = pair.end()
    return found


def pointing(value: str, place: Mapping[str, str]) -> str:
    """The line with these values in place of its own, everything else as it is.

    Raises:
        Unfit: as `pairs`.
    """
    merged = {**dict.fromkeys(place, ""), **pairs(value), **place}
    return " ".join(f"{name}={_quoted(text)}" for name, text in merged.items())


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else "'" + text.replace("'", "''") + "'"


def replace(path: Path, content: bytes, like: Path) -> None:
    """Write a file in one step, with mode and owner of `like`. Raises OSError."""
    there = like.stat()
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            if (there.st_uid, there.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), there.st_uid, there.st_gid)
            os.fchmod(file.fileno(), there.st_mode & 0o7777)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
    _settle(path.parent)


def try_to_replace(path: Path) -> None:
    """Do everything that `replace` does, but under another name, and remove it. Raises OSError."""
    trial = path.with_name(f".{path.name}.trial")
    replace(trial, b"", like=path)
    trial.unlink()


def _settle(directory: Path) -> None:
    """Have the directory's entries on disk."""
    number = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
