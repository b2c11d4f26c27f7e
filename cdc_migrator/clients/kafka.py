"""Kafka clients, and what their errors mean.

librdkafka goes on by itself whatever happens to a connection, so a call that fails says only that
its time is up. Why is told to a callback: a client keeps it in an `Ear`, and asks it when a call
has failed.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata  # type: ignore[attr-defined]

from cdc_migrator.errors import ConfigurationError, Failed, MigratorError, Refused
from cdc_migrator.model.outside import Brokers

# librdkafka would write connection failures to stderr by itself; callers get them as errors.
QUIET = logging.getLogger("cdc_migrator.kafka")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False

_TURN_SECONDS = 1.0
_LOGIN = {
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.ILLEGAL_SASL_STATE,
}
_TLS = {KafkaError._SSL}
DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}
AWAY = {
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Right:
    """One right on one thing of the cluster, as `kafka-acls.sh` calls them.

    Attributes:
        operation: ``Read``, ``DescribeConfigs`` and so on.
        kind: ``topic``, ``group``, ``transactional-id`` or ``cluster``.
    """

    operation: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.operation} on the {self.kind} {self.name}"


class Ear:
    """Hears what happens to a client's connections, and keeps what tells most.

    `told` is None for as long as nothing was heard since the last `forget`.
    """

    def __init__(self) -> None:
        self.told: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """For ``error_cb``."""
        # That all brokers are down comes behind each failure, and is no reason.
        if self.told is None or not (self.login_refused or _of_tls(self.told)):
            self.told = error

    def forget(self) -> None:
        self.told = None

    @property
    def login_refused(self) -> bool:
        """Whether the brokers did not accept user or password."""
        return self.told is not None and self.told.code() in _LOGIN

    @property
    def final(self) -> bool:
        """Whether trying again is useless."""
        if self.told is None:
            return False
        # A broker that goes away in the middle of a handshake is one of TLS' errors as well.
        tls = _of_tls(self.told) and "certificate" in self.told.str()
        return tls or self.login_refused


def make(kind: Callable[..., T], settings: Mapping[str, object], logger: logging.Logger) -> T:
    """A client of librdkafka.

    Raises:
        ConfigurationError: CDCM-KAFKA-SETTINGS: it does not take these settings.
    """
    try:
        return kind(dict(settings), logger=logger)
    except (KafkaException, TypeError, ValueError) as exc:
        # librdkafka repeats the value of a setting that it refuses; it may be a secret.
        error = exc.args[0] if exc.args else ""
        said = error.str() if isinstance(error, KafkaError) else "a value is of the wrong kind"
        said = re.sub(r'value "[^"]*"', "the value", said)
        raise ConfigurationError(
            "CDCM-KAFKA-SETTINGS",
            f"the Kafka client refuses its settings: {said}",
            "Correct the Kafka section of migration.yaml.",
        ) from None


class Admin:
    """An administrative client of one cluster. Not for several threads at once.

    Args:
        timeout: seconds for each question.

    Raises:
        ConfigurationError: CDCM-KAFKA-SETTINGS, CDCM-CONFIG-PASSWORD-FILE.
    """

    def __init__(self, brokers: Brokers, timeout: float = 15.0) -> None:
        self._brokers = brokers
        self._ear = Ear()
        self.timeout = timeout
        self.client: AdminClient = make(
            AdminClient,
            {
                "socket.connection.setup.timeout.ms": "10000",
                "log_level": 0,
                **brokers.properties(),
                "error_cb": self._ear,
            },
            QUIET,
        )

    def metadata(self, topic: str | None = None) -> ClusterMetadata:
        """The cluster and its topics, or one of them, as far as they may be seen.

        Raises MigratorError: as `explained`.
        """
        deadline = time.monotonic() + self.timeout
        while True:
            left = max(0.1, min(_TURN_SECONDS, deadline - time.monotonic()))
            try:
                found = self.client.list_topics(topic, timeout=left)
            except KafkaException as exc:
                self.client.poll(0)
                if self._ear.final or time.monotonic() > deadline:
                    raise self.explained(exc.args[0], "asking for the topics") from None
            else:
                self._ear.forget()
                return found

    def answer(self, asked: Any, doing: str, right: Right | None = None) -> Any:
        """What a question's future brings. Raises MigratorError: as `explained`."""
        try:
            return asked.result(self.timeout + 5)
        except KafkaException as exc:
            self.client.poll(0)
            raise self.explained(exc.args[0], doing, right) from None
        except TimeoutError:
            self.client.poll(0)
            raise self.explained(None, doing, right) from None

    def explained(
        self, error: KafkaError | None, doing: str, right: Right | None = None
    ) -> MigratorError:
        """See `explained`, with what was heard of the connections."""
        return explained(self._brokers.servers, error, doing, right, self._ear.told)


def explained(
    servers: str,
    error: KafkaError | None,
    doing: str,
    right: Right | None = None,
    heard: KafkaError | None = None,
) -> MigratorError:
    """The error that a user is shown in place of librdkafka's.

    Args:
        error: of the call that failed; None: its time was up.
        doing: what was tried, for a sentence.
        right: what doing it needs.
        heard: what an `Ear` has kept.

    Returns:
        Refused: CDCM-KAFKA-AUTH, CDCM-KAFKA-TLS, CDCM-KAFKA-DENIED.
        Failed: CDCM-KAFKA-UNREACHABLE, CDCM-KAFKA-FAILED.
    """
    away = error is None or error.code() in AWAY
    why = heard if away and heard is not None else error
    if why is not None and why.code() in _LOGIN:
        return Refused(
            "CDCM-KAFKA-AUTH",
            f"the Kafka brokers at {servers} do not accept this user ({_reason(why)})",
            "Check sasl.mechanism, sasl.username and the password in kafka.properties and "
            "kafka.property_files, and that the cluster knows this user.",
        )
    if why is not None and _of_tls(why):
        return Refused(
            "CDCM-KAFKA-TLS",
            f"no TLS session with the Kafka brokers at {servers}: {_reason(why)}",
            "Check ssl.ca.location against who signed the brokers' certificates, the host names in "
            "kafka.bootstrap_servers against those certificates and their validity, and "
            "ssl.certificate.location and ssl.key.location where the brokers want one of ours.",
        )
    if why is not None and why.code() in DENIED:
        return denied(right, f"{doing} ({why.name()})")
    if away:
        told = f" ({_reason(why)})" if why is not None else ""
        return Failed(
            "CDCM-KAFKA-UNREACHABLE",
            f"no Kafka broker at {servers} answers{told}",
            "Check the bootstrap servers, security.protocol and that Kafka runs (`cdc-migrator "
            "stack status` for the local one), then run the same command again.",
        )
    assert error is not None
    return Failed(
        "CDCM-KAFKA-FAILED",
        f"the brokers refused {doing}: {error.str()}",
        "Correct the cause (rights of the user, limits of the cluster) and run again.",
    )


def denied(right: Right | None, doing: str) -> Refused:
    """That a right is missing."""
    lacks = f"the Kafka user lacks {right}" if right else "the Kafka user lacks a right"
    return Refused(
        "CDCM-KAFKA-DENIED",
        f"{lacks}, which the brokers want for {doing}",
        "Grant it; `cdc-migrator init --acls` prints all that are needed, as commands.",
    )


def _of_tls(error: KafkaError) -> bool:
    # That a broker wants another certificate of us comes behind the handshake, as a lost session.
    return error.code() in _TLS or "SSL routines" in error.str()


def _reason(error: KafkaError) -> str:
    """librdkafka's words, without the address and times in front and behind."""
    said = re.sub(r"^\S+://[^:]+:\d+/\w+: ", "", error.str())
    said = re.sub(r" \(after \d+ms in state [^)]*(\(s\)[^)]*)?\)", "", said)
    return said.strip().rstrip(".") or str(error.name())


class _Client(Protocol):
    def set_sasl_credentials(self, username: str, password: str, /) -> None: ...


def renew_login(client: _Client, brokers: Brokers) -> bool:
    """Give a client the present user and password for its next connection; False where the
    settings name none. Raises ConfigurationError: CDCM-CONFIG-PASSWORD-FILE."""
    now = brokers.properties()
    user, password = now.get("sasl.username"), now.get("sasl.password")
    if not user or not password:
        return False
    client.set_sasl_credentials(user, password)
    return True
