"""Rules about how the connector writes values: what cannot be read back exactly."""

from __future__ import annotations

from collections.abc import Iterable

from cdc_migrator.capture.findings import Severity
from cdc_migrator.capture.lint.rule import DEFAULTS, Config, Rule, given, unless, when

_PLACEHOLDER = "unavailable.value.placeholder"


def _placeholder(config: Config) -> Iterable[str]:
    return (_PLACEHOLDER,) if config.get(_PLACEHOLDER) in ("", DEFAULTS[_PLACEHOLDER]) else ()


_REFUSE, _WARN = Severity.REFUSE, Severity.WARN

# fmt: off
RULES: tuple[Rule, ...] = (
    Rule("CDCM-LINT-DECIMALS-DOUBLE", _REFUSE, "decimal.handling.mode",
         "numbers lose their digits behind the fifteenth",
         "Set it to string.", when("decimal.handling.mode", "double")),
    Rule("CDCM-LINT-DECIMALS-PRECISE", _WARN, "decimal.handling.mode",
         "NaN and the infinities cannot be written, and trailing zeros are lost; precise is the "
         "default",
         "Set it to string.", when("decimal.handling.mode", "precise")),
    Rule("CDCM-LINT-INTERVALS", _REFUSE, "interval.handling.mode",
         "intervals are written as microseconds, with months of 30.4375 days; numeric is the "
         "default",
         "Set it to string.", unless("interval.handling.mode", "string")),
    Rule("CDCM-LINT-TIMES", _REFUSE, "time.precision.mode",
         "connect cuts times to milliseconds; nanoseconds cannot hold years before 1678 or after "
         "2261",
         "Set it to isostring or microseconds.",
         when("time.precision.mode", "connect", "nanoseconds")),
    Rule("CDCM-LINT-BINARY", _WARN, "binary.handling.mode",
         "binary values are written as hex or as base64 for addresses, which the applier does not "
         "read",
         "Set it to bytes or base64.", unless("binary.handling.mode", "bytes", "base64")),
    Rule("CDCM-LINT-UNKNOWN-TYPES", _REFUSE, "include.unknown.datatypes",
         "columns whose type the connector does not know are left out of events; false is the "
         "default",
         "Set it to true.", unless("include.unknown.datatypes", "true")),
    Rule("CDCM-LINT-PLACEHOLDER", _WARN, _PLACEHOLDER,
         "a row may hold the very text that stands for a value that did not change",
         "Set it to a random text of your own.", _placeholder),
    Rule("CDCM-LINT-CONVERTERS", _WARN, "converters",
         "converters of your own decide how values are written; nothing is known of them here",
         "Take it out, or see that every value can be read back.", given(r"converters")),
    Rule("CDCM-LINT-POST-PROCESSORS", _WARN, "post.processors",
         "a post-processor that reads values again finds those of a later time, not of the change",
         "Take it out; what an event leaves out, the target keeps.", given(r"post\.processors")),
    Rule("CDCM-LINT-MESSAGE-KEYS", _WARN, "message.key.columns",
         "events are keyed by other columns than the primary key: a change of those comes as a "
         "delete and an insert",
         "Take it out; give the table a primary key.", given(r"message\.key\.columns")),
)
# fmt: on
