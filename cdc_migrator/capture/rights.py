"""Whether our Kafka user has each right that a migration needs. Changes nothing.

What a topic that is there allows, the brokers tell (authorized operations). For one that is not
yet there each right is tried in a way that can come to nothing: making it is only validated, and a
position is committed for what does not exist. Deleting is not tried; but who may delete may see, so
that a heartbeats' topic that cannot be seen tells as much. Of the stream's topic it shows later.
"""

from __future__ import annotations

from typing import Any

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AclOperation, ConfigResource  # type: ignore[attr-defined]
from confluent_kafka.cimpl import KafkaError

from cdc_migrator.capture import topics as stream_topics
from cdc_migrator.capture.findings import Finding, Severity, from_error
from cdc_migrator.clients.kafka import AWAY, DENIED, Admin, Right, denied
from cdc_migrator.model.naming import Names, is_way_back, way_back_of
from cdc_migrator.model.outside import Brokers, TopicsMade

_OPERATIONS = {
    "Create": AclOperation.CREATE,
    "Read": AclOperation.READ,
    "Delete": AclOperation.DELETE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
}


def look(brokers: Brokers, names: Names, timeout: float = 10.0) -> list[Finding]:
    """What is missing for the stream, and as warnings for its way back.

    Raises MigratorError: as `Admin.metadata`.
    """
    admin = Admin(brokers, timeout)
    there = set(admin.metadata().topics)
    found = _Look(admin, brokers.topics, there).findings(names)
    if not is_way_back(names.migration):
        back = _Look(admin, brokers.topics, there).findings(Names(way_back_of(names.migration)))
        found += [_warning(one) for one in back]
    return found


def _warning(finding: Finding) -> Finding:
    return Finding(
        finding.code,
        Severity.WARN,
        finding.object,
        f"there could be no way back: {finding.cause}",
        finding.remedy,
    )


class _Look:
    def __init__(self, admin: Admin, made: TopicsMade, there: set[str]) -> None:
        self._admin = admin
        self._made = made
        self._there = there

    def findings(self, names: Names) -> list[Finding]:
        found = []
        ours = self._made is TopicsMade.OURS
        for topic, looking in ((names.topic, "Read"), (names.heartbeat_topic, "Describe")):
            if not ours and topic not in self._there:
                found.append(from_error(stream_topics.missing(topic), "kafka"))
                continue
            operations = [looking, "DescribeConfigs", *(("Create", "Delete") if ours else ())]
            wanted = [Right(one, "topic", topic) for one in operations]
            allowed = self._told(topic) if topic in self._there else None
            for right in wanted:
                has = (
                    _OPERATIONS[right.operation] in allowed
                    if allowed is not None
                    else self._may(right, names)
                )
                if not has:
                    found.append(_finding(right))
        group = Right("Read", "group", names.group)
        if not self._may_commit(names.group, _never(names.topic), group):
            found.append(_finding(group))
        return found

    def _told(self, topic: str) -> set[Any]:
        asked = self._admin.client.describe_topics(
            TopicCollection([topic]),
            include_authorized_operations=True,
            request_timeout=self._admin.timeout,
        )[topic]
        right = Right("Describe", "topic", topic)
        described = self._admin.answer(asked, "looking at it", right)
        return set(described.authorized_operations or ())

    def _may(self, right: Right, names: Names) -> bool:
        """By trying, on a topic that is not there."""
        client, timeout = self._admin.client, self._admin.timeout
        topic = right.name
        if right.operation == "Create":
            new = stream_topics.new_topic(topic)
            asked = client.create_topics([new], request_timeout=timeout, validate_only=True)[topic]
        elif right.operation == "DescribeConfigs":
            resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
            asked = client.describe_configs([resource], request_timeout=timeout)[resource]
        elif right.operation == "Delete":
            asked = client.describe_topics(TopicCollection([topic]), request_timeout=timeout)[topic]
        elif right.operation == "Read":
            return self._may_commit(names.group, topic, right)
        else:
            return True  # where this program makes the topic, Delete brings Describe along
        try:
            asked.result(timeout + 5)
        except KafkaException as exc:
            error = exc.args[0]
            if error.code() in DENIED:
                return False
            # What else stands against making it is told by `Topics.objection`.
            judged = right.operation == "Create" and error.code() not in AWAY
            if error.code() not in _NOT_THERE and not judged:
                raise self._admin.explained(error, "being asked for rights", right) from None
        return True

    def _may_commit(self, group: str, topic: str, right: Right) -> bool:
        """Whether a position of the group in a topic that is not there could be committed."""
        request = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 0)])
        asked = self._admin.client.alter_consumer_group_offsets(
            [request], request_timeout=self._admin.timeout
        )[group]
        try:
            answer = asked.result(self._admin.timeout + 5)
            errors = [one.error for one in answer.topic_partitions if one.error is not None]
        except KafkaException as exc:
            errors = [exc.args[0]]
        for error in errors:
            # Which of the two is missing: the group is asked about first.
            if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                return right.kind != "group"
            if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                return right.kind != "topic"
            if error.code() not in _NOT_THERE:
                raise self._admin.explained(error, "being asked for rights", right)
        return True


_NOT_THERE = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_ALREADY_EXISTS,
}


def _never(topic: str) -> str:
    """A topic beside the stream's that nobody ever makes."""
    return f"{topic}.rights"


def _finding(right: Right) -> Finding:
    error = denied(right, _WANTED_FOR[right.operation])
    return from_error(error, "kafka")


_WANTED_FOR = {
    "Create": "making it",
    "Read": "applying the stream",
    "Delete": "removing it in the end",
    "Describe": "looking at it",
    "DescribeConfigs": "reading its settings",
}
