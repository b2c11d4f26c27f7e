"""Changes of the source's schema that the target does not have yet, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WaitedFor:
    """A table at whose change the stream stands.

    Attributes:
        changes: what it cannot go on without, in words. statements: for the target.
    """

    table: str
    position: str
    changes: tuple[str, ...]
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ahead:
    """A change that the source has told of, or that was found there by looking, and that the
    stream has not come to. `tag`: the command; empty where it was found."""

    table: str
    tag: str
    token: str


@dataclass(frozen=True, slots=True)
class SchemaSample:
    """All of them. `ahead` is None where the source did not say."""

    waiting: tuple[WaitedFor, ...]
    ahead: tuple[Ahead, ...] | None = None
