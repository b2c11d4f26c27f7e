"""Short questions over the network: the connector's state, the topic's end and what it keeps.

Each asker keeps its client between questions, because making one costs more than the question;
a client is made when the first question is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from cdc_migrator.errors import Failed, MigratorError
from cdc_migrator.model.naming import Names
from cdc_migrator.model.outside import Brokers, Workers
from cdc_migrator.model.traces import summary
from cdc_migrator.monitor.sample import ConnectorSample, RetentionSample
from cdc_migrator.monitor.session import Paced

if TYPE_CHECKING:
    from confluent_kafka import KafkaError
    from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

    from cdc_migrator.clients.connect import WorkerSession
    from cdc_migrator.clients.kafka import Admin, Right

TIMEOUT_SECONDS = 4.0
# A topic's settings change when somebody changes them.
RETENTION_SECONDS = 60.0
IDENTITY_SECONDS = 2.0
TRACE_LENGTH = 600


class ConnectAsker:
    """Asks Connect's REST API. Not for several threads at once."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._session: WorkerSession | None = None

    def state(self, names: Names) -> ConnectorSample:
        """States of a stream's connector and its tasks, and why the first of them has failed.

        Raises:
            Failed: CDCM-CONNECT-UNREACHABLE. Refused: CDCM-CONNECT-AUTH, CDCM-CONNECT-TLS.
            ConfigurationError: CDCM-CONNECT-FILES, CDCM-CONFIG-PASSWORD-FILE.
        """
        import httpx

        from cdc_migrator.clients.connect import WorkerSession, shown

        if self._session is None:
            self._session = WorkerSession(self._workers, TIMEOUT_SECONDS)
        connector = self._workers.connector(names)
        answer = self._session.request("GET", f"/connectors/{quote(connector)}/status")
        try:
            if answer.status_code == httpx.codes.NOT_FOUND:
                return ConnectorSample(connector, exists=False)
            answer.raise_for_status()
            body = answer.json()
            parts = [body["connector"], *body["tasks"]]
            failed = [str(one.get("trace", "")) for one in parts if one["state"] == "FAILED"]
            workers = [str(one["worker_id"]) for one in reversed(parts) if one.get("worker_id")]
            return ConnectorSample(
                connector,
                exists=True,
                state=str(body["connector"]["state"]),
                tasks=tuple(str(task["state"]) for task in body["tasks"]),
                trace=summary(failed[0])[:TRACE_LENGTH] if failed else None,
                worker=workers[0] if workers else None,
            )
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Failed(
                "CDCM-CONNECT-UNREACHABLE",
                f"Kafka Connect at {' or '.join(map(shown, self._workers.urls))} does not "
                f"answer as it should ({type(error).__name__})",
                "Check that the worker runs and that connect.url is its REST address.",
            ) from None

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """The offset behind the topic's last committed record, what the topic keeps, and its id."""

    end_offset: int
    retention: RetentionSample | None
    topic_id: str | None = None


class KafkaAsker:
    """Asks the brokers. Not for several threads at once."""

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers
        self._admin: Admin | None = None
        self._retention: dict[str, Paced[RetentionSample]] = {}
        self._ids: dict[str, Paced[str]] = {}

    def look(self, topic: str) -> TopicFacts:
        """The topic's partition 0; what it keeps is asked every `RETENTION_SECONDS`.

        Raises:
            Failed: CDCM-KAFKA-UNREACHABLE, CDCM-STREAM-TOPIC-MISSING.
            Refused: CDCM-KAFKA-AUTH, CDCM-KAFKA-TLS, CDCM-KAFKA-DENIED.
            ConfigurationError: CDCM-KAFKA-SETTINGS, CDCM-CONFIG-PASSWORD-FILE.
        """
        from confluent_kafka import KafkaError, KafkaException
        from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

        from cdc_migrator.clients.kafka import Admin, Right

        right = Right("Read", "topic", topic)
        try:
            if self._admin is None:
                admin = Admin(self._brokers, TIMEOUT_SECONDS)
                admin.metadata()
                self._admin = admin
            client = self._admin.client
            end = _offset(client, topic, OffsetSpec.latest())  # type: ignore[no-untyped-call]
            right = Right("DescribeConfigs", "topic", topic)
            paced = self._retention.setdefault(topic, Paced(RETENTION_SECONDS))
            known = self._ids.setdefault(topic, Paced(IDENTITY_SECONDS))
            start = _offset(client, topic, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
            kept = paced.get(lambda: _retention(client, topic))
            return TopicFacts(
                end,
                replace(kept, start_offset=start) if kept else None,
                known.get(lambda: _id(client, topic)),
            )
        except KafkaException as error:
            assert self._admin is not None
            # Without a leader to ask, librdkafka finds "no entry".
            missing = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._NOENT)
            if error.args[0].code() in missing:
                raise Failed(
                    "CDCM-STREAM-TOPIC-MISSING",
                    f"the topic {topic} does not exist",
                    "Check kafka.bootstrap_servers; if the topic was deleted, "
                    "`cdc-migrator migrate --new-capture`.",
                ) from None
            raise self._explained(error.args[0], right) from None
        except TimeoutError:
            raise self._explained(None, right) from None

    def _explained(self, error: KafkaError | None, right: Right) -> MigratorError:
        assert self._admin is not None
        self._admin.client.poll(0)
        told = self._admin.explained(error, "measuring the topic", right)
        if told.code == "CDCM-KAFKA-AUTH":
            self._admin = None  # the next one is made with the password of then
        return told


def _offset(client: AdminClient, topic: str, which: OffsetSpec) -> int:
    from confluent_kafka import IsolationLevel, TopicPartition

    asked = client.list_offsets(
        {TopicPartition(topic, 0): which},
        isolation_level=IsolationLevel.READ_COMMITTED,
        request_timeout=TIMEOUT_SECONDS,
    )
    (answer,) = asked.values()
    return int(answer.result(timeout=TIMEOUT_SECONDS + 2).offset)


def _id(client: AdminClient, topic: str) -> str:
    from confluent_kafka import TopicCollection

    asked = client.describe_topics(TopicCollection([topic]), request_timeout=TIMEOUT_SECONDS)
    return str(asked[topic].result(timeout=TIMEOUT_SECONDS + 2).topic_id)


def _retention(client: AdminClient, topic: str) -> RetentionSample:
    from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]

    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    asked = client.describe_configs([resource], request_timeout=TIMEOUT_SECONDS)
    settings = asked[resource].result(timeout=TIMEOUT_SECONDS + 2)
    milliseconds, size = (int(settings[f"retention.{of}"].value) for of in ("ms", "bytes"))
    policies = str(settings["cleanup.policy"].value)
    # Compaction alone deletes no record for its age.
    deletes = "delete" in policies
    return RetentionSample(
        seconds=milliseconds / 1000 if deletes and milliseconds >= 0 else None,
        bytes=size if deletes and size >= 0 else None,
        compacted="compact" in policies,
        start_offset=0,
    )
