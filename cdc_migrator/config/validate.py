"""The settings of checking rules: where they stand, and what their results count for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

import orjson
from pydantic import Field, model_validator

from cdc_migrator.config.rules import Rule, told_apart
from cdc_migrator.config.section import Section
from cdc_migrator.config.values import Duration, FilePath


class Validate(Section):
    """Rules that the rows of both sides must keep (`validate`)."""

    file: FilePath | None = Field(
        default=None, description="A file of rules, as `validate init` writes it."
    )
    rules: tuple[Rule, ...] = Field(
        default=(),
        description="Rules beside those of the file; each with a `kind`: see below, and "
        "docs/validate.md.",
    )
    workers: int = Field(
        default=2,
        ge=1,
        le=32,
        description="Rules that are looked at at once; each takes a session of either server.",
    )
    timeout: Duration = Field(
        default=timedelta(minutes=5),
        gt=timedelta(0),
        description="How long a rule's statement may take; then the rule counts as not kept.",
    )
    max_age: Duration = Field(
        default=timedelta(days=1),
        description="How old the latest result may be when the verdict on switching over is asked.",
    )
    stale: Literal["block", "pass"] = Field(
        default="block",
        description="What that verdict is while the rules were not checked, or too long ago: "
        "`block`: no; `pass`: they do not stand against it.",
    )

    @model_validator(mode="after")
    def _told_apart(self) -> Validate:
        told_apart(self.rules)
        return self


def digest(rules: Sequence[Rule]) -> str:
    """Which rules these are: a result counts for those that it is of."""
    plain = [one.model_dump(mode="json") for one in rules]
    text = orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()
