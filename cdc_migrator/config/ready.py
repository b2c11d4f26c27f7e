"""The settings of the verdict on leaving the source."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from cdc_migrator.config.section import Section
from cdc_migrator.config.values import Duration


class Ready(Section):
    """When the verdict on switching over may be yes."""

    max_lag: Duration = Field(
        default=timedelta(seconds=10),
        description="Lag from source commit to target commit above which the verdict is no.",
    )
    max_proof_age: Duration = Field(
        default=timedelta(minutes=15),
        description="What was written up to this long ago must have been compared since; what "
        "nobody writes to keeps its proof for reconcile.max_proof_age.",
    )
    max_transaction_age: Duration = Field(
        default=timedelta(seconds=30),
        description="A transaction that has written on the source and is open for longer makes "
        "the verdict no: the fence might wait for it.",
    )
    min_runway: Duration = Field(
        default=timedelta(hours=1),
        description="For how long the source's log and the topic must be kept at the present rate, "
        "at least, before what is still needed of them is thrown away.",
    )
    schema_differs: str | None = Field(
        default=None,
        min_length=1,
        description="Why it is acceptable that the target's schema differs from the source's where "
        "rows arrive all the same (severity `warn` of `schema diff`).",
    )
    inspect_every: Duration = Field(
        default=timedelta(minutes=1),
        ge=timedelta(seconds=1),
        description="How often `run` looks at what takes longer, at least: both schemas, "
        "sequences, who is in the fence's way. What was found more than five times as long ago is "
        "unknown.",
    )
