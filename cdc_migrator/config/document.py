"""A strict reader of YAML: every fault with its line, no surprise in a value.

Duplicate keys and aliases are refused, and plain words stay words: only `true` and `false`
are truth values, `no`, `on`, `010` and dates are text. Knows nothing of the settings' meaning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 1 << 20

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: where, which key, and why. Never holds a value.

    `kind` is ``syntax``, ``duplicate``, ``unknown``, ``missing`` or ``invalid``.
    """

    where: str
    key: str
    message: str
    kind: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.message) if part)


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says: nested values, and the line of each key (1 is the first)."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    def place(self, path: KeyPath) -> str:
        """``migration.yaml:12``: the line of this key, or of the nearest one around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.path.name}:{self.lines[path]}" if path else self.path.name


class _Loader(yaml.SafeLoader):
    """SafeLoader with the unambiguous half of YAML 1.1's implicit types."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own protocol

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, "aliases are not used here", event.start_mark
            )
        return super().compose_node(parent, index)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:0|[1-9][0-9]*)\.[0-9]+", "-+0123456789"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}",
        re.compile(rf"^(?:{_pattern})$"),
        [c if c != "\0" else "" for c in _first],
    )


def read(path: Path) -> Document:
    """Parse the file at `path`; faults are collected in the result, not raised.

    Raises OSError when the file cannot be read.
    """
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        return _broken(path, None, f"is larger than {MAX_BYTES} bytes")
    try:
        loader = _Loader(raw)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return _broken(path, mark.line + 1 if mark else None, _problem(error))
    except (yaml.YAMLError, UnicodeDecodeError):
        return _broken(path, None, "is not text in UTF-8")
    if root is None:
        return Document(path)
    if not isinstance(root, yaml.MappingNode):
        return _broken(path, root.start_mark.line + 1, "must be a mapping of settings")
    walk = _Walk(path)
    values = walk.value(root, ())
    return Document(path, values, walk.lines, tuple(walk.faults))


def _problem(error: yaml.MarkedYAMLError) -> str:
    # Neither the snippet that PyYAML would add nor a longer quotation: they may hold a password.
    said = " ".join(part for part in (error.problem, error.context) if part)
    return "is not valid YAML: " + re.sub(
        r"(?<!\S)'[^'<>\s]{3,}'", "…", said or "cannot be understood"
    )


def _broken(path: Path, line: int | None, message: str) -> Document:
    where = f"{path.name}:{line}" if line else path.name
    return Document(path, faults=(Fault(where, "", message, "syntax"),))


class _Walk:
    """Turns nodes into values, noting each key's line and each duplicate."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._scalars = yaml.constructor.SafeConstructor()
        self.lines: dict[KeyPath, int] = {}
        self.faults: list[Fault] = []

    def value(self, node: Any, path: KeyPath) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                self.lines[(*path, index)] = item.start_mark.line + 1
                items.append(self.value(item, (*path, index)))
            return items
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError):
            self._fault(node, path, "has a tag that is not used here", "invalid")
            return None

    def _mapping(self, node: Any, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._fault(key_node, path, "a key must be a word", "invalid")
                continue
            key = str(key_node.value)
            if key in result:
                first = self.lines[(*path, key)]
                self._fault(
                    key_node, (*path, key), f"is there twice (first in line {first})", "duplicate"
                )
                continue
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            result[key] = self.value(value_node, (*path, key))
        return result

    def _fault(self, node: Any, path: KeyPath, message: str, kind: str) -> None:
        where = f"{self._path.name}:{node.start_mark.line + 1}"
        self.faults.append(Fault(where, ".".join(map(str, path)), message, kind))
