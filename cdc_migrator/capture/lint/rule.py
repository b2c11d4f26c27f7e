"""What a rule is, and what it says of a configuration that breaks it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cdc_migrator.capture.findings import Severity

# What Debezium's connector for PostgreSQL (3.x) and Connect take where nothing is said.
DEFAULTS: Mapping[str, str] = {
    "plugin.name": "decoderbufs",
    "slot.name": "debezium",
    "slot.drop.on.stop": "false",
    "publication.name": "dbz_publication",
    "publication.autocreate.mode": "all_tables",
    "snapshot.mode": "initial",
    "decimal.handling.mode": "precise",
    "interval.handling.mode": "numeric",
    "time.precision.mode": "adaptive",
    "binary.handling.mode": "bytes",
    "provide.transaction.metadata": "false",
    "exactly.once.support": "requested",
    "transaction.boundary": "poll",
    "unavailable.value.placeholder": "__debezium_unavailable_value",
    "tombstones.on.delete": "true",
    "skipped.operations": "t",
    "event.converting.failure.handling.mode": "warn",
    "event.processing.failure.handling.mode": "fail",
    "include.unknown.datatypes": "false",
    "heartbeat.interval.ms": "0",
    "max.batch.size": "2048",
    "max.queue.size": "8192",
    "max.queue.size.in.bytes": "0",
    "errors.tolerance": "none",
    "flush.lsn.source": "true",
}
HIDDEN = "**********"
SENSITIVE = re.compile(r"pass|secret|token|credential|jaas|sasl|\.key$|basic\.auth", re.IGNORECASE)


class Config:
    """A connector's settings; what is not said is Debezium's default."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self.given = given

    def get(self, setting: str) -> str:
        """The value in force, in lower case as modes are compared; '' where there is none."""
        return self.given.get(setting, DEFAULTS.get(setting, "")).strip().lower()

    def number(self, setting: str) -> int:
        """The same as a whole number; -1 where it is none."""
        try:
            return int(self.get(setting))
        except ValueError:
            return -1

    def shown(self, setting: str) -> str | None:
        """The value as it may be told; None where neither the user nor Debezium says one."""
        value = self.given.get(setting, DEFAULTS.get(setting))
        if value is None or SENSITIVE.search(setting) is None:
            return value
        return HIDDEN


Breaks = Callable[[Config], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        setting: which it is about, as the documentation calls it.
        why: what happens where it is broken.
        breaks: the settings by which a configuration breaks it; none: it is kept.
    """

    code: str
    severity: Severity
    setting: str
    why: str
    remedy: str
    breaks: Breaks

    def as_dict(self) -> dict[str, str]:
        """The machine-readable form."""
        return {
            "code": self.code,
            "severity": self.severity.value,
            "setting": self.setting,
            "why": self.why,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that a configuration breaks, and by which setting.

    `value` is the one in force, given or by default; hidden where it may be a secret.
    """

    rule: Rule
    setting: str
    value: str | None

    def as_dict(self) -> dict[str, str | None]:
        """The machine-readable form."""
        return {**self.rule.as_dict(), "setting": self.setting, "value": self.value}


def unless(setting: str, *good: str) -> Breaks:
    """Broken unless the setting is one of these."""
    return lambda config: () if config.get(setting) in good else (setting,)


def when(setting: str, *bad: str) -> Breaks:
    """Broken when the setting is one of these."""
    return lambda config: (setting,) if config.get(setting) in bad else ()


def given(*patterns: str) -> Breaks:
    """Broken by each setting that is given a value and whose whole name matches a pattern."""
    return lambda config: [
        name
        for name, value in sorted(config.given.items())
        if value.strip() and any(re.fullmatch(pattern, name) for pattern in patterns)
    ]
