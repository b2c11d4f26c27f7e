"""Where Kafka and Connect are: what the settings name, or the local stack where they name none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cdc_migrator.model.naming import way_back_of
from cdc_migrator.model.outside import Brokers, Login, TopicsMade, Workers

if TYPE_CHECKING:
    from cdc_migrator.config.outside import Connect
    from cdc_migrator.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Endpoints:
    """How to reach Kafka and Connect.

    Attributes:
        replication_factor: replicas of a topic; -1 for the broker's default.
        secrets_dir, secrets_dir_in_worker: where a secret for the Connect worker is written, and
            the same directory as the worker sees it.
        secrets_mode: the mode of such a file.
    """

    brokers: Brokers
    workers: Workers
    replication_factor: int
    secrets_dir: Path
    secrets_dir_in_worker: str
    secrets_mode: int = 0o600


def stack_dir(settings: Settings) -> Path:
    """The state directory of the local stack that belongs to these settings."""
    return settings.stack.state_dir or settings.state_dir / "stack"


def endpoints(settings: Settings) -> Endpoints:
    """The endpoints of the settings' mode.

    Raises:
        Failed: CDCM-STACK-NONE: no Kafka is configured and no local stack was started.
    """
    if settings.kafka is not None and settings.connect is not None:
        return Endpoints(
            Brokers(
                settings.kafka.bootstrap_servers,
                settings.kafka.other_properties,
                TopicsMade(settings.kafka.topics),
            ),
            _workers(settings.name, settings.connect),
            replication_factor=settings.kafka.replication_factor,
            secrets_dir=settings.connect.secrets_dir,
            secrets_dir_in_worker=settings.connect.secrets_path,
            secrets_mode=0o640 if settings.connect.secrets_for_group else 0o600,
        )
    from cdc_migrator.stack import local

    info = local.info(stack_dir(settings))
    return Endpoints(
        Brokers(info.bootstrap_servers),
        Workers.at(info.connect_url),
        replication_factor=1,
        secrets_dir=info.secrets_dir,
        secrets_dir_in_worker=str(info.secrets_dir),
    )


def _workers(name: str, connect: Connect) -> Workers:
    def login() -> Login | None:
        given = connect.reveal_login()
        return Login(*given) if given else None

    reserved = {name: connect.connector, way_back_of(name): connect.connector_back}
    return Workers(
        connect.url,
        login,
        connect.ca_file,
        connect.client_cert,
        connect.client_key,
        {migration: called for migration, called in reserved.items() if called is not None},
    )
