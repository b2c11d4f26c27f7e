"""A database's schema as parts that can be compared: what each is, says, and how it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Key = tuple[str, str]  # kind and name of a part


@dataclass(frozen=True, slots=True)
class Part:
    """One object of a schema, with everything about it in the catalog's own words.

    Attributes:
        kind: ``table``, ``column``, ``index``, ...
        name: what it is called, quoted for SQL, and unique among its kind.
        owner: name of the relation or domain that it belongs to and is dropped with, or None.
        schema: the schema it lives in, unquoted; None for schemas and extensions.
        address: what COMMENT ON calls it.
        drop: the statement that removes it; does nothing where it is gone already.
        create: the statements that make it, without its comment.
        attributes: what is compared; absent and null are the same.
        facts: what is not compared but needed to judge or mend a difference.
    """

    kind: str
    name: str
    owner: str | None
    schema: str | None
    address: str
    drop: str
    create: tuple[str, ...]
    attributes: Mapping[str, str]
    facts: Mapping[str, Any]

    @property
    def key(self) -> Key:
        """Kind and name, by which the two sides are matched."""
        return self.kind, self.name


@dataclass(frozen=True, slots=True)
class Catalog:
    """The parts of one database, and for each the parts that it cannot be without.

    `major` is the server's major version, in whose words the parts speak.
    """

    parts: Mapping[Key, Part]
    depends: Mapping[Key, frozenset[Key]]
    major: int


class Severity(StrEnum):
    """How much a difference matters.

    ERROR: rows cannot arrive, or would differ. WARN: the target behaves differently afterwards.
    INFO: nobody will notice, or it comes by itself after the load.
    """

    ERROR = "error"
    WARN = "warn"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a mending, with its place among all statements of a comparison.

    Attributes:
        destructive: it drops something of the target for good.
    """

    place: tuple[int, int]
    sql: str
    destructive: bool = False


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which the target is unlike the source.

    Attributes:
        attribute: what differs; ``presence`` where one side lacks the whole part.
        source, target: what either side says; None: it does not.
        note: what a reader should know beside that, or "".
        statements: what brings the target in line, in an order in which it runs.
    """

    kind: str
    object: str
    table: str | None
    attribute: str
    source: str | None
    target: str | None
    severity: Severity
    statements: tuple[Statement, ...]
    note: str = ""

    @property
    def destructive(self) -> bool:
        """Whether mending drops something of the target for good."""
        return any(statement.destructive for statement in self.statements)
