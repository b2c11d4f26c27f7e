"""What the steps of a migration are given, and who is told how they go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cdc_migrator.backfill.load import LoadOptions
from cdc_migrator.backfill.progress import LoadProgress
from cdc_migrator.backfill.schema_options import SchemaOptions
from cdc_migrator.capture.checks.estimate import Stated
from cdc_migrator.model.mapping import Wanted
from cdc_migrator.service.capturing import Capturing
from cdc_migrator.transform.entries import Place, plain_place


@dataclass(frozen=True, slots=True)
class MigrateOptions:
    """Where everything is, and how each step is done. The strings hold passwords.

    Attributes:
        accept: reasons for which a finding of `check` is accepted, by code.
        capturing: what `check`, `capture` and `until_streaming` need beside the databases.
        stated: what `check` cannot measure, and by what it judges.
        existing_schema: the target's schema is made by other tools. Once said it is stored with
            the migration.
        way_back: one is wanted.
        wanted: what is said of tables that change their shape; `place`: where it stands.
    """

    name: str
    source_dsn: str
    target_dsn: str
    include: Sequence[str]
    exclude: Sequence[str]
    accept: Mapping[str, str]
    capturing: Capturing | None = None
    stated: Stated = field(default_factory=Stated)
    takeover_after: float = 15.0
    load: LoadOptions = field(default_factory=LoadOptions)
    schema: SchemaOptions = field(default_factory=SchemaOptions)
    existing_schema: bool = False
    way_back: bool = False
    wanted: Sequence[Wanted] = ()
    place: Place = plain_place


class Observer(Protocol):
    """Told how the steps go; neither method may block for long."""

    def step(self, text: str) -> None:
        """Something begins or is done, as a sentence fragment."""

    def loading(self, progress: LoadProgress) -> None:
        """Four times a second while rows are copied."""
