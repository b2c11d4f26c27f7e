"""The settings of backups of the source."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from cdc_migrator.config.section import Section
from cdc_migrator.config.values import Duration


class Backup(Section):
    """A backup of the source, to be there before the source is left."""

    required: bool = Field(
        default=True,
        description="Without a backup that was verified by `backup verify`, or that the user "
        "stands for by `backup note`, the verdict on switching over is no.",
    )
    max_age: Duration = Field(
        default=timedelta(hours=24), description="How old that backup may be."
    )
    jobs: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Tables that are dumped, and restored for the test, at once; each takes a "
        "session.",
    )
