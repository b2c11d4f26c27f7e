"""Which side is the measure now: the source, or the target once applications write there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from cdc_migrator.control import cutover, schema
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import MigratorError
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.naming import way_back_of


@dataclass(frozen=True, slots=True)
class Direction:
    """A migration and its two databases: of the way back, once that is the one that counts."""

    name: str
    source_dsn: str
    target_dsn: str
    back: bool = False


def direction(name: str, source_dsn: str, target_dsn: str) -> Direction:
    """The direction in which changes are applied now; the way there where nobody can tell."""
    called = f"cdcm-{name}-direction"
    with suppress(MigratorError):
        with connect(
            login(target_dsn, Role.MONITOR), application_name=called, side="target", read_only=True
        ) as target:
            left = schema.exists(target, "target") and cutover.opened(target)
        if left:
            with connect(
                login(source_dsn, Role.MONITOR),
                application_name=called,
                side="source",
                read_only=True,
            ) as source:
                if schema.exists(source, "target") and not cutover.opened(source):
                    return Direction(way_back_of(name), target_dsn, source_dsn, back=True)
    return Direction(name, source_dsn, target_dsn)
