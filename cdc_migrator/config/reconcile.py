"""The settings of comparing both sides' rows."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from cdc_migrator.config.section import Section
from cdc_migrator.config.values import Duration


class Reconcile(Section):
    """Comparing both sides' rows."""

    max_proof_age: Duration = Field(
        default=timedelta(days=7),
        description="`reconcile --mode incremental` and the service also read what the stream has "
        "not written to, once its proof is older than this.",
    )
    continuous: bool = Field(
        default=False,
        description="`run` compares by itself, all the time, as `reconcile --mode incremental` "
        "does: first what the stream has written to, then the oldest proofs.",
    )
    share: float = Field(
        default=0.1,
        gt=0.0,
        le=1.0,
        description="Share of the time in which it keeps one session of either server busy.",
    )
    every: Duration = Field(
        default=timedelta(seconds=10), description="How long it pauses between two rounds."
    )
    repair: bool = Field(
        default=False,
        description="What it finds to differ is written anew, as `reconcile --repair` does. "
        "Otherwise it is only shown.",
    )
