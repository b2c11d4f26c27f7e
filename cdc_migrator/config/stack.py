"""The settings of the local stack."""

from __future__ import annotations

from pydantic import Field

from cdc_migrator.config.section import Section
from cdc_migrator.config.values import FilePath


class Stack(Section):
    """The local Kafka, Connect and PostgreSQL of `cdc-migrator stack up`."""

    jar_repository: str | None = Field(
        default=None,
        pattern=r"^(https?://|file:/|/)\S+$",
        description="Mirror of the central Java repository. Default: the central one.",
    )
    cache_dir: FilePath | None = Field(
        default=None,
        description="Where fetched jars are kept. Default: the user's cache directory.",
    )
    state_dir: FilePath | None = Field(
        default=None,
        description="Where the stack keeps its state. Default: `stack` inside state_dir.",
    )
