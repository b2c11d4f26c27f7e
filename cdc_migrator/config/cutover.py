"""The settings of leaving the source for the target."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field, field_validator

from cdc_migrator.config.hooks import Hook, each_its_name
from cdc_migrator.config.section import Section
from cdc_migrator.config.values import Duration


class Cutover(Section):
    """Leaving the source for the target."""

    budget: Duration = Field(
        default=timedelta(seconds=10),
        description="From the first write that is refused on the source to the target being open, "
        "at most; what takes longer is undone.",
    )
    fence_budget: Duration = Field(
        default=timedelta(seconds=10),
        description="For how long the source's tables are tried to be had free of writers.",
    )
    max_lag: Duration = Field(
        default=timedelta(seconds=2),
        description="The source is not fenced while the target is further behind.",
    )
    terminate: bool = Field(
        default=False,
        description="End sessions that are still in the way of the fence when its budget is used "
        "up. Otherwise the attempt is undone.",
    )
    verify: Literal["inside", "after"] = Field(
        default="inside",
        description="When that is compared which was written to since its last proof: `inside`, "
        "while nobody can write, or `after` the target is open.",
    )
    verify_budget: Duration = Field(
        default=timedelta(seconds=2),
        description="For how long it is compared while nobody can write; more than that is left "
        "to be compared after the target is open.",
    )
    without_way_back: str | None = Field(
        default=None,
        min_length=1,
        description="Why it is acceptable that there is no way back to the source once the target "
        "is open. Without a reason, and without a way back, the verdict is no.",
    )
    hooks: tuple[Hook, ...] = Field(
        default=(),
        description="What sends the applications to the other side, in this order; each with a "
        "`kind`: see below, and docs/hooks.md.",
    )

    @field_validator("hooks")
    @classmethod
    def _told_apart(cls, hooks: tuple[Hook, ...]) -> tuple[Hook, ...]:
        each_its_name(hooks)
        return hooks
