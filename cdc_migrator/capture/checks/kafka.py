"""The brokers: whether they would make the stream's topic, keep it, and finish transactions.

The topic's own settings stand above the brokers', so what they keep by default does not matter:
`Topics.ensure` makes it keep everything. What matters is what a topic cannot set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cdc_migrator.capture.findings import Finding, refuse, warn

Settings = Mapping[str, str]

# The connector's producer.override.transaction.timeout.ms.
_TRANSACTION_MS = 10_000


def topic(name: str, objection: str | None, differs: Sequence[str]) -> list[Finding]:
    """The stream's topic.

    Args:
        objection: why the brokers would not make it; None where they would, or it is there.
        differs: in which settings one that is there differs.
    """
    if objection is not None:
        return [
            refuse(
                "CDCM-KAFKA-TOPIC",
                "kafka",
                f"the brokers would not make the topic {name}, which keeps everything: {objection}",
                "Correct what they name: rights, limits or a policy of the cluster, or a topic "
                "whose name is the same to Kafka, which takes . and _ for one.",
            )
        ]
    if differs:
        return [
            refuse(
                "CDCM-TOPIC-DIFFERS",
                "kafka",
                f"the topic {name} is there already with other settings: {', '.join(differs)}",
                "Change the topic's settings as named, or remove the migration that it is left "
                "from with `cdc-migrator abort`.",
            )
        ]
    return []


def brokers(
    found: Mapping[int, Settings] | None,
    replication_factor: int,
    largest: int,
    transactions: bool,
) -> list[Finding]:
    """What a topic cannot set for itself.

    Args:
        found: each broker's settings by its id; None where they are not for us to see.
        replication_factor: of the stream's topic; -1 for the brokers' own default.
        largest: bytes of the largest record.
        transactions: the log of transactions is there already, whatever the settings say.
    """
    if found is None:
        return [
            warn(
                "CDCM-KAFKA-SETTINGS-HIDDEN",
                "kafka",
                "the brokers do not tell this user their settings, so that replicas, transactions "
                "and limits are not known",
                "Grant it DESCRIBE_CONFIGS on the cluster, or look at min.insync.replicas, "
                "transaction.state.log.* and unclean.leader.election.enable yourself.",
            )
        ]
    told: dict[str, Finding] = {}
    for broker, settings in sorted(found.items()):
        room = None if transactions else len(found)
        for one in _broker(f"broker {broker}", settings, room, replication_factor, largest):
            told.setdefault(one.code, one)
    return list(told.values())


def _broker(
    name: str, settings: Settings, room: int | None, replication_factor: int, largest: int
) -> list[Finding]:
    """`room`: brokers for a log of transactions that is still to be made."""
    found = []
    factor = replication_factor
    if factor < 0:
        factor = _number(settings, "default.replication.factor", 1)
    in_sync = _number(settings, "min.insync.replicas", 1)
    if in_sync > factor:
        found.append(
            refuse(
                "CDCM-KAFKA-REPLICAS",
                name,
                f"min.insync.replicas is {in_sync}, and the stream's topic would have {factor} "
                "replicas: nothing could be written to it",
                f"Set kafka.replication_factor to {in_sync + 1} or more (in migration.yaml).",
            )
        )
    needed = max(
        _number(settings, "transaction.state.log.replication.factor", 1),
        _number(settings, "transaction.state.log.min.isr", 1),
    )
    longest = _number(settings, "transaction.max.timeout.ms", _TRANSACTION_MS)
    reasons = []
    if room is not None and needed > room:
        reasons.append(f"their log wants {needed} brokers, and there are {room}")
    if longest < _TRANSACTION_MS:
        reasons.append(
            f"transaction.max.timeout.ms is {longest}, and the connector asks for {_TRANSACTION_MS}"
        )
    if reasons:
        found.append(
            refuse(
                "CDCM-KAFKA-TRANSACTIONS",
                name,
                f"the connector's transactions would fail: {'; '.join(reasons)}",
                "Set transaction.state.log.replication.factor and transaction.state.log.min.isr "
                "to what the brokers can do, and transaction.max.timeout.ms to 10000 or more.",
            )
        )
    if settings.get("unclean.leader.election.enable") == "true":
        found.append(
            warn(
                "CDCM-KAFKA-UNCLEAN-ELECTION",
                name,
                "unclean.leader.election.enable is on: when brokers fail, records that were "
                "acknowledged can be lost, and with them changes",
                "Set it to false; a comparison (`reconcile`) finds what is missing otherwise.",
            )
        )
    request = _number(settings, "socket.request.max.bytes", largest)
    if request < largest:
        found.append(
            warn(
                "CDCM-KAFKA-REQUEST-BYTES",
                name,
                f"socket.request.max.bytes is {request}: a row whose event is larger stops the "
                f"connector, which may write records of {largest}",
                f"Set it to {largest} or more, if there are rows of such a size.",
            )
        )
    return found


def _number(settings: Settings, name: str, otherwise: int) -> int:
    try:
        return int(settings[name])
    except (KeyError, ValueError):
        return otherwise
