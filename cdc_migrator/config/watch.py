"""The settings of watching the target once it is open: rules, each a number and what it may be."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator

from cdc_migrator.config.secrets import read_secret_file
from cdc_migrator.config.section import Section
from cdc_migrator.config.values import Duration, FilePath, Share, TextLike

_LONGEST = timedelta(seconds=30)  # a measurement; the service ends no sooner than it does


def _lasting(seconds: float) -> Any:
    return Field(
        default=timedelta(seconds=seconds),
        alias="for",
        description="It fires when the number was beyond for all of this time, and can fire again "
        "when it was fine for as long.",
    )


class _Common(Section):
    """What each kind of rule has."""

    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_.-]{1,63}$",
        description="How messages, metrics and the journal call it. Default: its kind.",
    )
    action: Literal["alert", "rollback"] = Field(
        default="alert",
        description="`alert`: tell it (journal, log, metrics). `rollback`: go back to the source "
        "as well, as `cdc-migrator rollback` does.",
    )

    @property
    def called(self) -> str:
        """Its name."""
        return self.name or str(getattr(self, "kind", ""))


class ErrorRate(_Common):
    """The share of the target's transactions that were rolled back."""

    kind: Literal["error_rate"] = Field(description="`error_rate`")
    threshold: Share = Field(
        default=0.01, description="Above this share it is beyond: `1%`, or `0.01`."
    )
    for_: Duration = _lasting(30)


class Latency(_Common):
    """Mean time that the target takes to execute: a statement, or a transaction where the
    extension pg_stat_statements is not there."""

    kind: Literal["latency"] = Field(description="`latency`")
    threshold: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Above so many milliseconds it is beyond.",
    )
    times_baseline: float = Field(
        default=2.0,
        gt=0,
        allow_inf_nan=False,
        description="Without a threshold: above so many times the mean of the source's latest "
        "baseline (`cdc-migrator baseline record`).",
    )
    for_: Duration = _lasting(30)


class Lag(_Common):
    """How far the source is behind the target, on the way back."""

    kind: Literal["lag"] = Field(description="`lag`")
    threshold: Duration = Field(
        default=timedelta(seconds=30), description="Above this it is beyond."
    )
    for_: Duration = _lasting(30)


class Mismatch(_Common):
    """Rows that a comparison has found to differ, and nobody has accepted or mended."""

    kind: Literal["mismatch"] = Field(description="`mismatch`")
    threshold: int = Field(default=0, ge=0, description="More than so many rows are beyond.")
    for_: Duration = _lasting(0)


class Critical(_Common):
    """Whatever breaks the way back by itself: its stream has halted, or tables of the source have
    lost their fence. The number counts them; any is beyond."""

    kind: Literal["critical"] = Field(description="`critical`")
    for_: Duration = _lasting(10)


class _Given(_Common):
    """What the kinds with a number of the user's have."""

    threshold: float = Field(allow_inf_nan=False, description="Above this number it is beyond.")
    below: bool = Field(default=False, description="It is beyond below the threshold instead.")
    timeout: Duration = Field(
        default=timedelta(seconds=5),
        gt=timedelta(0),
        le=_LONGEST,
        description="One measurement may take this long, at most; then the number is unknown.",
    )


class Prometheus(_Given):
    """What a Prometheus server answers to a query: a scalar, or one series."""

    kind: Literal["prometheus"] = Field(description="`prometheus`")
    url: str = Field(
        pattern=r"^https?://[^@\s?#]+$",
        description="The server, such as http://prometheus:9090, without a user or password.",
    )
    query: str = Field(min_length=1, description="The query, in PromQL.")
    headers: dict[str, Annotated[SecretStr, TextLike]] = Field(
        default_factory=dict, description="More headers."
    )
    header_files: dict[str, FilePath] = Field(
        default_factory=dict,
        description="Headers whose value is the first line of a file, such as Authorization.",
    )
    for_: Duration = _lasting(30)

    def reveal_headers(self) -> dict[str, str]:
        """All headers with secrets in clear: only for sending.

        Raises:
            ConfigurationError: CDCM-CONFIG-PASSWORD-FILE: a header's file cannot be used.
        """
        return {
            **{name: value.get_secret_value() for name, value in self.headers.items()},
            **{name: read_secret_file(path) for name, path in self.header_files.items()},
        }


class Sql(_Given):
    """What a statement returns: one row of one number. It can only read."""

    kind: Literal["sql"] = Field(description="`sql`")
    side: Literal["source", "target"] = Field(
        default="target", description="Where it is asked: `source` or `target`."
    )
    statement: str = Field(
        min_length=1, description="The statement; names of tables need their schema."
    )
    for_: Duration = _lasting(30)


class Command(_Given):
    """What a program prints: one number, and nothing else."""

    kind: Literal["command"] = Field(description="`command`")
    argv: tuple[str, ...] = Field(
        min_length=1, description="The program and its arguments; no shell reads them."
    )
    for_: Duration = _lasting(30)


Rule = Annotated[
    ErrorRate | Latency | Lag | Mismatch | Critical | Prometheus | Sql | Command,
    Field(discriminator="kind"),
]


class Watch(Section):
    """Watching the target once it is open, and what is done when it does worse."""

    every: Duration = Field(
        default=timedelta(seconds=5),
        ge=timedelta(milliseconds=100),
        description="How often each number is measured.",
    )
    settle: Duration = Field(
        default=timedelta(seconds=30),
        description="For how long after the opening no rule counts: caches are cold.",
    )
    tolerance: Share = Field(
        default=0.1,
        description="By how much the target may be slower than the source, or do less, for "
        "`baseline compare`.",
    )
    rules: tuple[Rule, ...] = Field(
        default=(
            ErrorRate(kind="error_rate"),
            Latency(kind="latency"),
            Lag(kind="lag"),
            Mismatch(kind="mismatch"),
            Critical(kind="critical"),
        ),
        description="The rules, instead of these; each with a `kind`: see below, and "
        "docs/watch.md.",
    )

    @field_validator("rules")
    @classmethod
    def _told_apart(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        called = Counter(rule.called for rule in rules)
        if any(count > 1 for count in called.values()):
            raise ValueError("two are called the same: give each a `name` of its own")
        return rules
