"""The stream's topics: one partition, nothing ever deleted; made before the connector.

Left to Connect or to the broker, a topic would come with the cluster's defaults, and a stream in
two partitions, compacted or expired is not a stream. Where somebody else makes them beforehand,
they are looked at in the same way, and neither made nor removed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    ConfigResource,
    OffsetSpec,
)
from confluent_kafka.cimpl import KafkaError, NewTopic

from cdc_migrator.clients.kafka import AWAY, DENIED, Admin, Right
from cdc_migrator.errors import Failed, Refused
from cdc_migrator.model.outside import Brokers, TopicsMade

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
SETTINGS = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "max.message.bytes": str(MAX_MESSAGE_BYTES),
}


class Topics:
    """The topics of one Kafka cluster.

    Args:
        timeout: seconds for each question.

    Every method raises Failed CDCM-KAFKA-UNREACHABLE or CDCM-KAFKA-FAILED, and Refused
    CDCM-KAFKA-AUTH, CDCM-KAFKA-TLS or CDCM-KAFKA-DENIED.
    """

    def __init__(self, brokers: Brokers, timeout: float = 15.0) -> None:
        self._brokers = brokers
        self._admin = Admin(brokers, timeout)

    @property
    def given(self) -> bool:
        """Whether somebody else makes and removes the streams' topics."""
        return self._brokers.topics is TopicsMade.GIVEN

    def names(self) -> list[str]:
        """All topics of the cluster that we may see."""
        return list(self._admin.metadata().topics)

    def ensure(self, topic: str, replication_factor: int = 1) -> bool:
        """Make a stream's topic, or see that the one there is as it must be.

        Returns whether it was made.

        Raises:
            Refused: CDCM-TOPIC-DIFFERS: a topic of this name has other settings.
                CDCM-TOPIC-MISSING: it is somebody else's to make, and is not there.
        """
        made = False
        if self._brokers.topics is TopicsMade.OURS:
            made = self._create(topic, replication_factor)
        elif topic not in self.names():
            raise missing(topic)
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
        # By the administrative client: a consumer would want rights on a group as well.
        partition = TopicPartition(topic, 0)
        deadline = time.monotonic() + self._admin.timeout
        while True:
            asked = self._admin.client.list_offsets(
                {partition: OffsetSpec.latest()},  # type: ignore[no-untyped-call]
                request_timeout=self._admin.timeout,
            )[partition]
            try:
                return int(asked.result(self._admin.timeout + 5).offset)
            except KafkaException as exc:
                error = exc.args[0]
                # A topic that was made a moment ago has no leader yet.
                if error.code() not in _HEARSAY or time.monotonic() > deadline:
                    right = Right("Read", "topic", topic)
                    raise self._admin.explained(error, "asking for its end", right) from None
            time.sleep(0.1)

    def id(self, topic: str) -> str:
        """Which topic of this name it is: one that is deleted and made again has another id."""
        asked = self._admin.client.describe_topics(
            TopicCollection([topic]), request_timeout=self._admin.timeout
        )[topic]
        right = Right("Describe", "topic", topic)
        return str(self._admin.answer(asked, f"describing the topic {topic}", right).topic_id)

    def delete(self, topics: Iterable[str]) -> list[str]:
        """Remove the topics that are there and wait until they are gone; returns their names."""
        there = sorted(set(self.names()) & set(topics))
        if not there:
            return []
        asked = self._admin.client.delete_topics(there, request_timeout=self._admin.timeout)
        for topic, future in asked.items():
            try:
                future.result(self._admin.timeout)
            except KafkaException as exc:
                if exc.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    right = Right("Delete", "topic", topic)
                    raise self._admin.explained(exc.args[0], "deleting it", right) from None
        deadline = time.monotonic() + self._admin.timeout
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
        """Why the brokers would not make a stream's topic; None where they would, or where only a
        right is missing. Makes nothing.

        Limits, policies and names that are too much alike are the brokers' own to judge.
        """
        asked = self._admin.client.create_topics(
            [new_topic(topic, replication_factor)],
            request_timeout=self._admin.timeout,
            validate_only=True,
        )[topic]
        try:
            asked.result(self._admin.timeout + 5)
        except KafkaException as exc:
            error = exc.args[0]
            if error.code() in DENIED:
                return None
            if error.code() in AWAY:
                raise self._admin.explained(error, "judging it", None) from None
            return str(error.str())
        return None

    def broker_settings(self) -> dict[int, dict[str, str]] | None:
        """The settings of each broker, by its id; None where they are not told to this user."""
        settings = {}
        for broker in list(self._admin.metadata().brokers):
            # Each tells only its own.
            asked = ConfigResource(ConfigResource.Type.BROKER, str(broker))
            answer = self._admin.client.describe_configs(
                [asked], request_timeout=self._admin.timeout
            )[asked]
            try:
                entries = answer.result(self._admin.timeout + 5)
            except KafkaException as exc:
                if exc.args[0].code() in AWAY:
                    raise self._admin.explained(exc.args[0], "describing the brokers") from None
                return None  # a right that is missing, or a service that keeps them to itself
            settings[int(broker)] = {
                name: entry.value for name, entry in entries.items() if entry.value is not None
            }
        return settings

    def _create(self, topic: str, replication_factor: int) -> bool:
        new = new_topic(topic, replication_factor)
        timeout = self._admin.timeout
        future = self._admin.client.create_topics([new], request_timeout=timeout)[topic]
        try:
            future.result(timeout + 5)
        except KafkaException as exc:
            if exc.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            right = Right("Create", "topic", topic)
            raise self._admin.explained(exc.args[0], "creating it", right) from None
        # Accepted is not yet there: the next request may ask a broker that has not heard of it.
        deadline = time.monotonic() + timeout
        while topic not in self.names() and time.monotonic() < deadline:
            time.sleep(0.05)
        return True

    def differences(self, topic: str) -> list[str]:
        """In which settings a topic that is there is not as a stream's must be."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        there = self._admin.metadata(topic).topics[topic]
        if there.error is not None:
            right = Right("Describe", "topic", topic)
            raise self._admin.explained(there.error, "looking at it", right)
        asked = self._admin.client.describe_configs(
            [resource], request_timeout=self._admin.timeout
        )[resource]
        values = self._admin.answer(
            asked, "reading its settings", Right("DescribeConfigs", "topic", topic)
        )
        return different(len(there.partitions), {key: one.value for key, one in values.items()})


_HEARSAY = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError._NOENT,
}


def new_topic(topic: str, replication_factor: int = -1) -> NewTopic:
    """A stream's topic as it is asked for; -1: as many replicas as is the brokers' default."""
    return NewTopic(
        topic, num_partitions=1, replication_factor=replication_factor, config=dict(SETTINGS)
    )


def different(partitions: int, values: dict[str, str]) -> list[str]:
    """In which of its settings a topic is no stream's, each for people to read."""
    wrong = [] if partitions == 1 else [f"{partitions} partitions, not 1"]
    for key, wanted in SETTINGS.items():
        value = values[key]
        # A longer message limit is somebody's choice and does no harm.
        fits = int(value) >= int(wanted) if key == "max.message.bytes" else value == wanted
        if not fits:
            wrong.append(f"{key}={value}, not {wanted}")
    return wrong


def missing(topic: str) -> Refused:
    """That a topic which others make is not there."""
    return Refused(
        "CDCM-TOPIC-MISSING",
        f"the topic {topic} is not there, or this user may not see it, and kafka.topics says "
        "that it is given",
        "Have it made; `cdc-migrator init --acls` prints how. Or set kafka.topics: ours.",
    )
