"""Who decides, and who is told: for the documents that people read in the night."""

from __future__ import annotations

from pydantic import Field

from cdc_migrator.config.section import Section
from cdc_migrator.config.values import Words


class People(Section):
    """Who decides about going back, and who is told; free text, for `plan rollback`."""

    decide: Words = Field(
        default=(),
        description="Who may decide to go back, in the order in which they are asked: name and "
        "how to reach them.",
    )
    tell: Words = Field(
        default=(),
        description="Who is told, when it begins and when it is over: people, channels, a status "
        "page.",
    )
