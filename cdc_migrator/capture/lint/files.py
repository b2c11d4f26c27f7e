"""Read a connector's configuration from a file: JSON as Connect takes it, Java properties, YAML.

Messages never repeat what the file holds: it may be a password.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cdc_migrator.errors import ConfigurationError


def read(path: Path) -> dict[str, str]:
    """The settings in a file; values as text, as Connect has them.

    JSON and YAML may hold them directly, under ``config`` (a request to make a connector), or
    under ``spec.config`` (a KafkaConnector of Strimzi).

    Raises:
        ConfigurationError: CDCM-LINT-FILE: it cannot be read, or holds no such settings.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise _unreadable(path, reason or "unknown") from None
    if text.lstrip().startswith(("{", "[")):
        try:
            return _settings(path, json.loads(text))
        except ValueError as error:
            line = getattr(error, "lineno", None)
            raise _unreadable(path, f"it is not JSON (line {line})") from None
    if path.suffix in (".yaml", ".yml"):
        try:
            return _settings(path, yaml.safe_load(text))
        except yaml.YAMLError:
            raise _unreadable(path, "it is not YAML") from None
    return dict(properties(text))


def _settings(path: Path, document: Any) -> dict[str, str]:
    inside = document
    if isinstance(inside, dict) and isinstance(inside.get("spec"), dict):
        # There the class stands beside the settings.
        spec = inside["spec"]
        inside = {"connector.class": spec.get("class"), **(spec.get("config") or {})}
    elif isinstance(inside, dict) and isinstance(inside.get("config"), dict):
        inside = inside["config"]
    if not isinstance(inside, dict) or any(isinstance(v, (dict, list)) for v in inside.values()):
        raise _unreadable(path, "it holds no settings, each a name and a plain value")
    return {str(name): _text(value) for name, value in inside.items() if value is not None}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def properties(text: str) -> Iterator[tuple[str, str]]:
    """Names and values of a Java properties file."""
    # A line that ends with an odd number of backslashes goes on in the next.
    joined = re.sub(r"(?<!\\)((?:\\\\)*)\\\r?\n[ \t\f]*", r"\1", text)
    for line in joined.splitlines():
        line = line.lstrip(" \t\f")
        if not line or line[0] in "#!":
            continue
        found = re.match(r"((?:\\.|[^\\=: \t\f])*)[ \t\f]*[=:]?[ \t\f]*(.*)", line)
        assert found is not None
        yield _unescaped(found[1]), _unescaped(found[2])


def _unescaped(text: str) -> str:
    meanings = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}

    def meant(found: re.Match[str]) -> str:
        if found[1]:
            return chr(int(found[1], 16))
        return meanings.get(found[2], found[2])

    return re.sub(r"\\(?:u([0-9A-Fa-f]{4})|(.))", meant, text)


def _unreadable(path: Path, reason: str) -> ConfigurationError:
    return ConfigurationError(
        "CDCM-LINT-FILE",
        f"{path} cannot be read as a connector's configuration: {reason}",
        "Give JSON as Connect takes it, a .properties file, or YAML.",
    )
