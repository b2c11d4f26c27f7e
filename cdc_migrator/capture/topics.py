"""The stream's topics: one partition, nothing ever deleted; made before the connector.

Left to Connect or to the broker, a topic would come with the cluster's defaults, and a stream in
two partitions, compacted or expired is not a stream.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
)
from confluent_kafka.cimpl import KafkaError, NewTopic

from cdc_migrator.errors import Failed, Refused

# librdkafka would write connection failures to stderr by itself; callers get them as errors.
QUIET = logging.getLogger("cdc_migrator.kafka")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_SETTINGS = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "max.message.bytes": str(MAX_MESSAGE_BYTES),
}
# No answer, which is not one against what was asked.
_SILENT = (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)


def client_settings(bootstrap_servers: str) -> dict[str, str | int | float | bool]:
    """What each of our Kafka clients starts from."""
    return {"bootstrap.servers": bootstrap_servers, "socket.connection.setup.timeout.ms": "10000"}


class Topics:
    """The topics of one Kafka cluster.

    Every method raises Failed CDCM-KAFKA-UNREACHABLE when no broker answers in `timeout` seconds.
    """

    def __init__(self, bootstrap_servers: str, timeout: float = 15.0) -> None:
        self._servers = bootstrap_servers
        self._timeout = timeout
        self._admin = AdminClient(client_settings(bootstrap_servers), logger=QUIET)

    def names(self) -> list[str]:
        """All topics of the cluster."""
        try:
            return list(self._admin.list_topics(timeout=self._timeout).topics)
        except KafkaException as exc:
            raise self._unreachable(exc) from None

    def ensure(self, topic: str, replication_factor: int = 1) -> bool:
        """Make a stream's topic, or see that the one there is as it must be.

        Returns whether it was made.

        Raises:
            Refused: CDCM-TOPIC-DIFFERS: a topic of this name has other settings.
        """
        made = self._create(topic, replication_factor)
        wrong = self.differences(topic)
        if wrong:
            raise Refused(
                "CDCM-TOPIC-DIFFERS",
                f"the topic {topic} is there already with other settings: {', '.join(wrong)}",
                "Change the topic's settings as named, or remove the migration that it is left "
                "from with `cdc-migrator abort`.",
            )
        return made

    def end_offset(self, topic: str) -> int:
        """The offset after the last record of a stream's topic; 0 if nothing was ever written."""
        consumer = Consumer(
            client_settings(self._servers)
            | {"group.id": "cdc-migrator-offsets", "enable.auto.commit": "false"},
            logger=QUIET,
        )
        try:
            _, high = consumer.get_watermark_offsets(
                TopicPartition(topic, 0), timeout=self._timeout
            )
            return int(high)
        except KafkaException as exc:
            raise self._unreachable(exc) from None
        finally:
            consumer.close()

    def delete(self, topics: Iterable[str]) -> list[str]:
        """Remove the topics that are there and wait until they are gone; returns their names."""
        there = sorted(set(self.names()) & set(topics))
        if not there:
            return []
        for future in self._admin.delete_topics(there, request_timeout=self._timeout).values():
            try:
                future.result(self._timeout)
            except KafkaException as exc:
                if exc.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise self._failed("deleting topics", exc) from None
        deadline = time.monotonic() + self._timeout
        while set(self.names()) & set(there):
            if time.monotonic() > deadline:
                raise Failed(
                    "CDCM-KAFKA-FAILED",
                    "the brokers accepted the deletion of topics and still list them",
                    "Run the same command again.",
                )
            time.sleep(0.1)
        return there

    def objection(self, topic: str, replication_factor: int = 1) -> str | None:
        """Why the brokers would not make a stream's topic; None where they would. Makes nothing.

        Limits, policies, rights and names that are too much alike are the brokers' own to judge.
        """
        new = _new(topic, replication_factor)
        future = self._admin.create_topics(
            [new], request_timeout=self._timeout, validate_only=True
        )[topic]
        try:
            future.result(self._timeout + 5)
        except KafkaException as exc:
            if exc.args[0].code() in _SILENT:
                raise self._unreachable(exc) from None
            return str(exc.args[0].str())
        return None

    def brokers(self) -> dict[int, dict[str, str]] | None:
        """The settings of each broker, by its id; None where they are not told to this user."""
        try:
            found = list(self._admin.list_topics(timeout=self._timeout).brokers)
            settings = {}
            for broker in found:
                # Each tells only its own.
                asked = ConfigResource(ConfigResource.Type.BROKER, str(broker))
                answer = self._admin.describe_configs([asked], request_timeout=self._timeout)
                entries = answer[asked].result(self._timeout + 5)
                settings[int(broker)] = {
                    name: entry.value for name, entry in entries.items() if entry.value is not None
                }
        except KafkaException as exc:
            if exc.args[0].code() in _SILENT:
                raise self._unreachable(exc) from None
            return None  # a right that is missing, or a service that keeps them to itself
        return settings

    def _create(self, topic: str, replication_factor: int) -> bool:
        new = _new(topic, replication_factor)
        future = self._admin.create_topics([new], request_timeout=self._timeout)[topic]
        try:
            future.result(self._timeout + 5)
        except KafkaException as exc:
            if exc.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            raise self._failed(f"creating the topic {topic}", exc) from None
        # Accepted is not yet there: the next request may ask a broker that has not heard of it.
        deadline = time.monotonic() + self._timeout
        while topic not in self.names() and time.monotonic() < deadline:
            time.sleep(0.05)
        return True

    def differences(self, topic: str) -> list[str]:
        """In which settings a topic that is there is not as a stream's must be.

        Raises Failed CDCM-KAFKA-FAILED where it cannot be looked at.
        """
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        try:
            there = self._admin.list_topics(topic, timeout=self._timeout).topics[topic]
            config = self._admin.describe_configs([resource], request_timeout=self._timeout)
            values = config[resource].result(self._timeout + 5)
        except KafkaException as exc:
            raise self._failed(f"describing the topic {topic}", exc) from None
        wrong = [] if len(there.partitions) == 1 else [f"{len(there.partitions)} partitions, not 1"]
        for key, wanted in _SETTINGS.items():
            value = values[key].value
            # A longer message limit is somebody's choice and does no harm.
            fits = int(value) >= int(wanted) if key == "max.message.bytes" else value == wanted
            if not fits:
                wrong.append(f"{key}={value}, not {wanted}")
        return wrong

    def _unreachable(self, exc: KafkaException) -> Failed:
        return Failed(
            "CDCM-KAFKA-UNREACHABLE",
            f"no Kafka broker at {self._servers} answers ({exc.args[0].name()})",
            "Check the bootstrap servers and that Kafka runs (`cdc-migrator stack status` for the "
            "local one), then run the same command again.",
        )

    def _failed(self, doing: str, exc: KafkaException) -> Failed:
        if exc.args[0].code() in _SILENT:
            return self._unreachable(exc)
        return Failed(
            "CDCM-KAFKA-FAILED",
            f"the brokers refused {doing}: {exc.args[0].str()}",
            "Correct the cause (rights of the user, limits of the cluster) and run again.",
        )


def _new(topic: str, replication_factor: int) -> NewTopic:
    return NewTopic(
        topic, num_partitions=1, replication_factor=replication_factor, config=dict(_SETTINGS)
    )
