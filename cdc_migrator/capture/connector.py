"""The connector's configuration, from the template, the names and the source's address.

Decides only. The password is not part of it: the configuration, which Connect stores in a topic
and shows to everyone who asks, holds a reference to a file on the worker's machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from cdc_migrator.errors import ConfigurationError
from cdc_migrator.model.naming import Names

PLUGIN = "io.debezium.connector.postgresql.PostgresConnector"
PASSWORD_KEY = "password"
# Of the settings the one that tells migrations apart: its value is random.
OWNER = "unavailable.value.placeholder"

# The migration's name follows; `Names` lets nothing into it that would need quoting.
_BEAT = (
    "UPDATE cdc_migrator.heartbeat SET beat = beat + 1, at = clock_timestamp() WHERE migration = "
)


def template(name: str = "postgres") -> dict[str, str]:
    """The settings that are the same for every stream of this kind of source.

    They lie beside the package in a checkout and inside it in an installed wheel.
    """
    file = f"{name}.json"
    inside = files("cdc_migrator").joinpath("connectors", file)
    beside = Path(__file__).parents[2] / "connectors" / file
    text = inside.read_text() if inside.is_file() else beside.read_text()
    settings: dict[str, str] = json.loads(text)
    return settings


def configuration(
    names: Names,
    way_in: Mapping[str, str],
    placeholder: str,
    replication_factor: int = 1,
    overrides: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """All settings of this migration's connector; every value is a string, as Connect has them.

    Args:
        way_in: the settings by which the worker gets into the source (`access.of`).
        placeholder: what events hold in place of an unchanged TOAST value.
        overrides: more settings; they win, save over the ones that exactness rests on.

    Raises:
        ConfigurationError: CDCM-CONNECTOR-OVERRIDE: an override touches such a setting.
    """
    settings = template()
    settings.update(
        {
            **way_in,
            "topic.prefix": names.prefix,
            "slot.name": names.slot,
            "publication.name": names.publication,
            OWNER: placeholder,
            "heartbeat.action.query": _BEAT + f"'{names.migration}'",
            "topic.creation.default.replication.factor": str(replication_factor),
            "transforms.stream.regex": f"{re.escape(names.prefix)}\\.(?!stream$).*",
            "transforms.stream.replacement": names.topic,
        }
    )
    for key, value in (overrides or {}).items():
        if key in settings and key not in _TUNABLE:
            raise ConfigurationError(
                "CDCM-CONNECTOR-OVERRIDE",
                f"the connector setting {key!r} is what the stream's exactness rests on",
                "Take it out of the connector's overrides; these can be set: "
                + ", ".join(sorted(_TUNABLE)),
            )
        settings[key] = value
    return settings


# Settings that trade latency, memory and patience, and never what an event means.
_TUNABLE = frozenset(
    {
        "poll.interval.ms",
        "max.batch.size",
        "max.queue.size",
        "max.queue.size.in.bytes",
        "heartbeat.interval.ms",
        "slot.max.retries",
        "slot.retry.delay.ms",
        "retriable.restart.connector.wait.ms",
        # How long the task may miss that the offsets it waits for are there (see docs/apply.md).
        "consumer.override.fetch.max.wait.ms",
        "producer.override.linger.ms",
        # A worker that was killed inside a Kafka transaction starts again only when that has
        # timed out: it waits for the end of its offsets topic.
        "producer.override.transaction.timeout.ms",
        "producer.override.compression.type",
        "producer.override.max.request.size",
        "producer.override.buffer.memory",
        "database.hostname",
        "database.port",
        "database.user",
    }
)


def secrets_text(password: str) -> str:
    """The properties file that holds the password (java.util.Properties' escapes)."""
    escaped = "".join(_escape(char) for char in password)
    return f"{PASSWORD_KEY}={escaped}\n"


def _escape(char: str) -> str:
    if char in "\\ :=#!":
        return "\\" + char
    if " " < char <= "~":
        return char
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def differences(wanted: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """The settings, by name, in which a stored configuration is not the wanted one."""
    ours = {k: v for k, v in there.items() if k != "name"}
    return sorted(k for k in wanted.keys() | ours.keys() if wanted.get(k) != ours.get(k))
