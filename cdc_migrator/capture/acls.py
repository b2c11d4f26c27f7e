"""The rights on Kafka that a migration needs, for this program's user and for the worker's.

Pure. Derived from the requests that are really sent, each with its reason; a right that another
one implies (Describe by Read, Write and Delete) is not listed. Tests run a migration with exactly
these, and take each away.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cdc_migrator.capture.topics import SETTINGS
from cdc_migrator.clients.kafka import Right
from cdc_migrator.model.naming import Names, way_back_of
from cdc_migrator.model.outside import TopicsMade, Workers


class Who(StrEnum):
    """SERVICE: this program. WORKER: the Connect worker, whose producers write the stream."""

    SERVICE = "service"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Acl:
    """One right of one of the two users.

    Attributes:
        prefixed: it is on all whose names begin so.
        why: the request that needs it.
    """

    who: Who
    right: Right
    prefixed: bool
    why: str

    def covers(self, right: Right) -> bool:
        """Whether the other right follows from this one, implied operations aside."""
        mine = self.right
        named = right.name.startswith(mine.name) if self.prefixed else right.name == mine.name
        return (mine.operation, mine.kind) == (right.operation, right.kind) and named

    def as_dict(self, principal: str) -> dict[str, str]:
        """The machine-readable form."""
        return {
            "for": self.who.value,
            "principal": principal,
            "operation": self.right.operation,
            "resource_type": self.right.kind,
            "resource_name": self.right.name,
            "pattern_type": "prefixed" if self.prefixed else "literal",
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class WorkerNames:
    """What the worker's own configuration calls its things: ``group.id`` and the topics."""

    group: str = "connect-cluster"
    configs: str = "connect-configs"
    offsets: str = "connect-offsets"
    status: str = "connect-status"


def needed(
    migration: str, topics: TopicsMade, workers: Workers, own: WorkerNames | None = None
) -> list[Acl]:
    """All of both users, for the way there and the way back."""
    found = []
    for name in (migration, way_back_of(migration)):
        found += _service(Names(name), topics)
    own = own or WorkerNames()
    found += _worker(own)
    for name in (migration, way_back_of(migration)):
        found += _connector(Names(name), workers.connector(Names(name)), own)
    return found


def topic_prefix(names: Names) -> str:
    """With which the names of the stream's topics begin, in whichever generation."""
    return f"cdcm.{names.migration}."


def heartbeat_prefix(names: Names) -> str:
    """The same of the topic of heartbeats."""
    return f"__debezium-heartbeat.{topic_prefix(names)}"


def _service(names: Names, topics: TopicsMade) -> list[Acl]:
    ours = topics is TopicsMade.OURS

    def on_topics(operation: str, name: str, why: str) -> Acl:
        return Acl(Who.SERVICE, Right(operation, "topic", name), True, why)

    stream, beats = topic_prefix(names), heartbeat_prefix(names)
    found = [
        on_topics("Read", stream, "Fetch, ListOffsets: applying the stream, proving it by a ping"),
        on_topics("DescribeConfigs", stream, "DescribeConfigs: seeing that nothing is deleted"),
        on_topics("DescribeConfigs", beats, "DescribeConfigs: seeing that it is as it must be"),
    ]
    if ours:
        found += [
            on_topics("Create", stream, "CreateTopics: making the stream's topic"),
            on_topics("Create", beats, "CreateTopics: making the topic of heartbeats"),
            on_topics("Delete", stream, "DeleteTopics: abort and finish remove it"),
            on_topics("Delete", beats, "DeleteTopics: abort and finish remove it"),
        ]
    else:
        found.append(on_topics("Describe", beats, "Metadata: seeing that it is there"))
    found.append(
        Acl(
            Who.SERVICE,
            Right("Read", "group", names.group),
            False,
            "FindCoordinator, OffsetCommit: showing lag exporters how far the stream is applied",
        )
    )
    return found


def _worker(own: WorkerNames) -> list[Acl]:
    def literal(operation: str, kind: str, name: str, why: str) -> Acl:
        return Acl(Who.WORKER, Right(operation, kind, name), False, why)

    found = [literal("Read", "group", own.group, "JoinGroup: the workers' own group")]
    for topic in (own.configs, own.offsets, own.status):
        why = "the worker's own topic"
        found += [literal(one, "topic", topic, why) for one in ("Create", "Read", "Write")]
        found.append(literal("DescribeConfigs", "topic", topic, "seeing that it is compacted"))
    found.append(
        literal(
            "Write",
            "transactional-id",
            f"connect-cluster-{own.group}",
            "InitProducerId: the leader writes configurations in transactions",
        )
    )
    return found


def _connector(names: Names, called: str, own: WorkerNames) -> list[Acl]:
    return [
        Acl(
            Who.WORKER,
            Right("Write", "topic", topic_prefix(names)),
            True,
            "Produce: the connector writes the stream",
        ),
        Acl(
            Who.WORKER,
            Right("Write", "topic", heartbeat_prefix(names)),
            True,
            "Produce: the connector's heartbeats",
        ),
        Acl(
            Who.WORKER,
            Right("Write", "transactional-id", f"{own.group}-{called}-"),
            True,
            "InitProducerId, EndTxn: exactly-once",
        ),
    ]


def acl_command(acl: Acl, principal: str, servers: str) -> str:
    """The line that grants it."""
    pattern = " --resource-pattern-type prefixed" if acl.prefixed else ""
    return (
        f"kafka-acls.sh --bootstrap-server {shlex.quote(servers)} "
        "--command-config admin.properties --add "
        f"--allow-principal {shlex.quote(principal)} --operation {acl.right.operation} "
        f"--{acl.right.kind} {shlex.quote(acl.right.name)}{pattern}"
    )


def topics_of(migration: str) -> Sequence[str]:
    """The topics that somebody makes beforehand where they are given."""
    both = Names(migration), Names(way_back_of(migration))
    return [topic for names in both for topic in (names.topic, names.heartbeat_topic)]


def topic_command(topic: str, replication_factor: int, servers: str) -> str:
    """The line that makes such a topic."""
    replicas = f" --replication-factor {replication_factor}" if replication_factor > 0 else ""
    config = "".join(f" --config {key}={value}" for key, value in SETTINGS.items())
    return (
        f"kafka-topics.sh --bootstrap-server {shlex.quote(servers)} "
        f"--command-config admin.properties --create --topic {topic} --partitions 1"
        f"{replicas}{config}"
    )
