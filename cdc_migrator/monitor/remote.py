"""Short questions over the network: the connector's state, the topic's end and what it keeps.

Each asker keeps its client between questions, because making one costs more than the question;
a client is made when the first question is asked.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from cdc_migrator.errors import Failed
from cdc_migrator.model.traces import summary
from cdc_migrator.monitor.sample import ConnectorSample, RetentionSample
from cdc_migrator.monitor.session import Paced

if TYPE_CHECKING:
    import httpx
    from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

TIMEOUT_SECONDS = 4.0
# A topic's settings change when somebody changes them.
RETENTION_SECONDS = 60.0
TRACE_LENGTH = 600

# librdkafka repeats each refused connection; the note says it once.
_silent = logging.getLogger("cdc_migrator.monitor.librdkafka")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class ConnectAsker:
    """Asks Connect's REST API. Not for several threads at once."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._client: httpx.Client | None = None

    def state(self, connector: str) -> ConnectorSample:
        """States of the connector and its tasks, and why the first of them has failed.

        Raises:
            Failed: CDCM-CONNECT-UNREACHABLE.
        """
        import httpx

        if self._client is None:
            self._client = httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=not _loopback(self._url))
        try:
            answer = self._client.get(f"{self._url}/connectors/{quote(connector)}/status")
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
                f"Kafka Connect at {urlsplit(self._url).netloc.rpartition('@')[2]} does not "
                f"answer as it should ({type(error).__name__})",
                "Check that the worker runs and that connect.url is its REST address.",
            ) from None

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _loopback(url: str) -> bool:
    """A proxy of this machine has no business with loopback."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """The offset behind the topic's last committed record, and what the topic keeps."""

    end_offset: int
    retention: RetentionSample | None


class KafkaAsker:
    """Asks the brokers. `properties` are librdkafka's, with ``bootstrap.servers``."""

    def __init__(self, properties: Mapping[str, str]) -> None:
        self._properties = properties
        self._client: AdminClient | None = None
        self._retention: dict[str, Paced[RetentionSample]] = {}

    def look(self, topic: str) -> TopicFacts:
        """The topic's partition 0; what it keeps is asked every `RETENTION_SECONDS`.

        Raises:
            Failed: CDCM-KAFKA-UNREACHABLE, CDCM-STREAM-TOPIC-MISSING.
        """
        from confluent_kafka import KafkaError, KafkaException
        from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

        try:
            if self._client is None:
                self._client = AdminClient({**self._properties, "log_level": 0}, logger=_silent)
                self._client.list_topics(timeout=TIMEOUT_SECONDS)
            client = self._client
            end = _offset(client, topic, OffsetSpec.latest())  # type: ignore[no-untyped-call]
            paced = self._retention.setdefault(topic, Paced(RETENTION_SECONDS))
            return TopicFacts(end, paced.get(lambda: _retention(client, topic)))
        except KafkaException as error:
            # Without a leader to ask, librdkafka finds "no entry".
            missing = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._NOENT)
            if error.args[0].code() in missing:
                raise Failed(
                    "CDCM-STREAM-TOPIC-MISSING",
                    f"the topic {topic} does not exist",
                    "Check kafka.bootstrap_servers; if the topic was deleted, the stream is lost.",
                ) from None
            raise self._no_broker(str(error.args[0].name())) from None
        except TimeoutError:
            raise self._no_broker("timeout") from None

    def _no_broker(self, reason: str) -> Failed:
        return Failed(
            "CDCM-KAFKA-UNREACHABLE",
            f"no Kafka broker at {self._properties.get('bootstrap.servers')} answers ({reason})",
            "Check that the brokers run and that kafka.bootstrap_servers and the security "
            "properties are right.",
        )


def _offset(client: AdminClient, topic: str, which: OffsetSpec) -> int:
    from confluent_kafka import IsolationLevel, TopicPartition

    asked = client.list_offsets(
        {TopicPartition(topic, 0): which},
        isolation_level=IsolationLevel.READ_COMMITTED,
        request_timeout=TIMEOUT_SECONDS,
    )
    (answer,) = asked.values()
    return int(answer.result(timeout=TIMEOUT_SECONDS + 2).offset)


def _retention(client: AdminClient, topic: str) -> RetentionSample:
    from confluent_kafka.admin import ConfigResource, OffsetSpec  # type: ignore[attr-defined]

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
        start_offset=_offset(client, topic, OffsetSpec.earliest()),  # type: ignore[no-untyped-call]
    )
