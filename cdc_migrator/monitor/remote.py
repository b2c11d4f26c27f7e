"""Two short questions over the network: the connector's state, and the end of the topic.

Each asker keeps its client between questions, because making one costs more than the question;
a client is made when the first question is asked.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from cdc_migrator.errors import Failed
from cdc_migrator.monitor.sample import ConnectorSample

if TYPE_CHECKING:
    import httpx
    from confluent_kafka.admin import AdminClient

TIMEOUT_SECONDS = 4.0

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
        """States of the connector and its tasks. A task's trace stays out: it may quote a row.

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
            return ConnectorSample(
                connector,
                exists=True,
                state=str(body["connector"]["state"]),
                tasks=tuple(str(task["state"]) for task in body["tasks"]),
            )
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
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


class KafkaAsker:
    """Asks the brokers. `properties` are librdkafka's, with ``bootstrap.servers``."""

    def __init__(self, properties: Mapping[str, str]) -> None:
        self._properties = properties
        self._client: AdminClient | None = None

    def end_offset(self, topic: str) -> int:
        """Offset behind the last committed record of the topic's partition 0.

        Raises:
            Failed: CDCM-KAFKA-UNREACHABLE, CDCM-STREAM-TOPIC-MISSING.
        """
        from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
        from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

        try:
            if self._client is None:
                self._client = AdminClient({**self._properties, "log_level": 0}, logger=_silent)
            asked = self._client.list_offsets(
                {TopicPartition(topic, 0): OffsetSpec.latest()},  # type: ignore[no-untyped-call]
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=TIMEOUT_SECONDS,
            )
            (answer,) = asked.values()
            return int(answer.result(timeout=TIMEOUT_SECONDS + 2).offset)
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
