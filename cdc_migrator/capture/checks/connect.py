"""The Connect worker: Debezium is there and new enough, and may do what the stream needs."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from cdc_migrator.capture.findings import Finding, refuse

MIN_DEBEZIUM = (3, 7)
# Connectors can be made stopped from 3.7 on; before that one would run before its stream is known.
MIN_KAFKA = (3, 7)
# What a worker is asked to check before there is a connector: what rests on its own settings.
_OVERRIDES = {"producer.override.linger.ms": "0", "consumer.override.fetch.max.wait.ms": "50"}
ASKED = {"exactly.once.support": "required", **_OVERRIDES}


def worker(version: str) -> list[Finding]:
    """The Connect worker's own release.

    Args:
        version: of Kafka, as the worker tells it.
    """
    wanted = ".".join(map(str, MIN_KAFKA))
    if _numbers(version) >= MIN_KAFKA:
        return []
    return [
        refuse(
            "CDCM-CONNECT-WORKER",
            "connect",
            f"the Connect worker runs Kafka {version}; {wanted} or newer is needed, because "
            "earlier ones cannot make a connector that does not run at once",
            f"Use a worker of Kafka {wanted} or newer; the brokers may be older.",
        )
    ]


def plugin(
    version: str | None, objections: Mapping[str, Collection[str]], name: str
) -> list[Finding]:
    """Debezium is there and new enough, exactly-once source is on, our settings are let through.

    Args:
        version: of Debezium's connector, or None if the worker has none.
        objections: what the worker says against `ASKED`, by setting.
    """
    wanted = ".".join(map(str, MIN_DEBEZIUM))
    if version is None:
        return [
            refuse(
                "CDCM-CONNECT-PLUGIN",
                "connect",
                f"the Connect worker does not have {name}",
                f"Put Debezium's PostgreSQL connector {wanted} or newer into its plugin.path.",
            )
        ]
    found = []
    if _numbers(version) < MIN_DEBEZIUM:
        found.append(
            refuse(
                "CDCM-CONNECT-VERSION",
                "connect",
                f"the Connect worker has Debezium {version}; {wanted} or newer is needed, because "
                "earlier ones can lose changes when they are restarted",
                f"Install Debezium's PostgreSQL connector {wanted} or newer in the worker.",
            )
        )
    if objections.get("exactly.once.support"):
        found.append(
            refuse(
                "CDCM-CONNECT-EXACTLY-ONCE",
                "connect",
                "the Connect worker has exactly-once source support off: after a restart parts of "
                "transactions would come twice",
                "Set exactly.once.source.support=enabled in every worker's configuration (first "
                "`preparing`, then `enabled`, one worker after the other) and restart them.",
            )
        )
    if any(objections.get(setting) for setting in _OVERRIDES):
        found.append(
            refuse(
                "CDCM-CONNECT-OVERRIDES",
                "connect",
                "the Connect worker does not let a connector change the settings of its Kafka "
                "clients, such as the largest record",
                "Set connector.client.config.override.policy=All in every worker's configuration "
                "(the default since Kafka 3.0) and restart them.",
            )
        )
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", version)[:2])
