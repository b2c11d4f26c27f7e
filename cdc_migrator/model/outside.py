"""Where Kafka and Connect are, and how one is let in there. Values; nothing is reached from here.

A secret is never a part of such a value: it is read by a function, each time that a client is
made, so that one that was changed meanwhile is found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cdc_migrator.model.naming import Names

SERVERS = "bootstrap.servers"


class TopicsMade(StrEnum):
    """Who makes and removes the topics of a stream: this program, or somebody beforehand."""

    OURS = "ours"
    GIVEN = "given"


@dataclass(frozen=True, slots=True)
class Brokers:
    """One Kafka cluster.

    Attributes:
        servers: ``host:port``, several with commas.
        read: gives librdkafka's other properties (``security.protocol``, ``sasl.*``, ``ssl.*``),
            secrets in clear; may raise ConfigurationError.
        topics: who makes the streams' topics.
    """

    servers: str
    read: Callable[[], Mapping[str, str]] = field(default=dict, repr=False, compare=False)
    topics: TopicsMade = TopicsMade.OURS

    def properties(self) -> dict[str, str]:
        """All properties with secrets in clear, as they are now: only for making a client.

        Raises:
            ConfigurationError: CDCM-CONFIG-PASSWORD-FILE: a property's file cannot be used.
        """
        return {**self.read(), SERVERS: self.servers}


@dataclass(frozen=True, slots=True)
class Login:
    """Name and password for HTTP's basic authentication."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Workers:
    """One cluster of Kafka Connect.

    Attributes:
        urls: the REST addresses of its workers, in the order in which they are tried.
        login: gives name and password, None where nobody asks; may raise ConfigurationError.
        ca_file: the authority that the workers' certificates must come from; None: the system's.
        client_cert, client_key: what we show them, PEM.
        connectors: connectors' names that were chosen for us, by the name of the migration.
    """

    urls: tuple[str, ...]
    login: Callable[[], Login | None] = field(default=lambda: None, repr=False, compare=False)
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    connectors: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, *urls: str) -> Workers:
        """Workers that ask for nothing."""
        return cls(urls)

    def connector(self, names: Names) -> str:
        """What the connector of a stream is called there."""
        return self.connectors.get(names.migration, names.connector)
