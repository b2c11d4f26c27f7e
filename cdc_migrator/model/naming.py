"""The names of everything that a migration creates, from its name and its generation."""

from __future__ import annotations

import re
from dataclasses import dataclass

CONTROL_SCHEMA = "cdc_migrator"
NAME_PATTERN = r"[a-z][a-z0-9_]{0,39}"
# The way back is a migration of its own, from the target to the source; no user's name ends so.
_BACK = "_back"


def way_back_of(migration: str) -> str:
    """The name of a migration's way back."""
    return migration + _BACK


def way_there_of(way_back: str) -> str:
    """The name of the migration whose way back this is."""
    return way_back.removesuffix(_BACK)


def is_way_back(migration: str) -> bool:
    """Whether it is the name of a way back."""
    return migration.endswith(_BACK)


@dataclass(frozen=True, slots=True)
class Names:
    """Names of one life (`generation`) of a migration's slot, connector and topic.

    Raises ValueError when `migration` is not a lower-case identifier of at most 40 characters, or
    such a one's way back (a slot name may have 63 and only lower-case letters, digits and
    underscores).
    """

    migration: str
    generation: int = 1

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME_PATTERN, self.migration.removesuffix(_BACK)):
            raise ValueError(f"migration name must match {NAME_PATTERN}")

    @property
    def slot(self) -> str:
        return f"cdcm_{self.migration}_{self.generation}"

    @property
    def publication(self) -> str:
        return f"cdcm_{self.migration}"

    @property
    def connector(self) -> str:
        return f"cdcm-{self.migration}-{self.generation}"

    @property
    def prefix(self) -> str:
        return f"cdcm.{self.migration}.{self.generation}"

    @property
    def topic(self) -> str:
        return f"{self.prefix}.stream"

    @property
    def heartbeat_topic(self) -> str:
        return f"__debezium-heartbeat.{self.prefix}"

    @property
    def group(self) -> str:
        """The consumer group under which Kafka shows how far the stream is applied."""
        return f"cdcm-{self.migration}"
