"""Types of single settings: durations, sizes and shares as people write them, lists, paths.

Pure: text in, value out; messages never repeat the text.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_settings import NoDecode

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
_BYTES_SI: Final = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_duration(value: Any) -> timedelta:
    """A number of seconds, or text such as ``250ms``, ``10s``, ``1.5m``, ``2h``.

    Raises ValueError for anything else, negative and endless ones included.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*", str(value))
        if match is None:
            raise ValueError("must be seconds, or a number with ms, s, m, h or d, such as 10s")
        seconds = float(match[1]) * _UNITS[match[2] or "s"]
    if not 0 <= seconds < 10 * 365 * 86400:
        raise ValueError("must lie between 0 and ten years")
    return timedelta(seconds=seconds)


def duration_text(value: timedelta) -> str:
    """The shortest form that `parse_duration` reads back: ``200ms``, ``15s``, ``5m``."""
    seconds = value.total_seconds()
    for unit in ("d", "h", "m", "s"):
        count = seconds / _UNITS[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{seconds * 1000:.3f}".rstrip("0").rstrip(".") + "ms"


def parse_size(value: Any) -> int:
    """A number of bytes, or text such as ``512KiB``, ``64MiB``, ``1GB``.

    Raises ValueError for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"\s*(\d+)\s*([A-Za-z]*)\s*", str(value))
    unit = match[2].upper() if match else ""
    factor = _BYTES.get(unit) or _BYTES_SI.get(unit)
    if match is None or factor is None:
        raise ValueError("must be bytes, or a number with KiB, MiB, GiB, KB, MB or GB")
    return int(match[1]) * factor


def size_text(value: int) -> str:
    """The shortest form that `parse_size` reads back: ``64MiB``, ``1500``."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value and value % factor == 0:
            return f"{value // factor}{unit}"
    return str(value)


def parse_share(value: Any) -> float:
    """A share of a whole: text such as ``10%``, or a number from 0 to 1.

    Raises ValueError for anything else: 10 might mean either.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", str(value))
    if match is None or isinstance(value, bool):
        raise ValueError("must be a percentage such as 10%, or a number from 0 to 1")
    share = float(match[1]) / (100 if match[2] else 1)
    if share > 1 and not match[2]:
        raise ValueError("must lie between 0 and 1; write percentages with their sign, as 10%")
    return share


def share_text(value: float) -> str:
    """The form that `parse_share` reads back: ``10%``."""
    return f"{value * 100:.10g}%"


def _parse_words(value: Any) -> Any:
    """A list stays; text is split at commas, as the environment gives it."""
    if isinstance(value, str):
        return [word.strip() for word in value.strip("[] ").split(",") if word.strip()]
    return value


def _parse_text(value: Any) -> Any:
    """Numbers and truth values in a map of properties become the text that Kafka wants."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (int, float)) else value


def _expand(path: Path) -> Path:
    return path.expanduser()


class FromFile:
    """Marks a path that is relative to the directory of migration.yaml when written there."""


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(duration_text, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^\d+(\.\d+)?\s*(ms|s|m|h|d)?$"},
            ]
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(size_text, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": r"^\d+\s*([KMG]i?B|B)?$"},
            ]
        }
    ),
]
Share = Annotated[
    float,
    BeforeValidator(parse_share),
    PlainSerializer(share_text, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 1},
                {"type": "string", "pattern": r"^\d+(\.\d+)?\s*%?$"},
            ]
        }
    ),
]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_words)]
FilePath = Annotated[Path, FromFile(), WithJsonSchema({"type": "string", "format": "path"})]
TextLike = BeforeValidator(_parse_text)
