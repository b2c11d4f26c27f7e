"""Where Kafka and Connect are: what the settings name, or the local stack where they name none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cdc_migrator.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Endpoints:
    """How to reach Kafka and Connect.

    Attributes:
        kafka: librdkafka properties with ``bootstrap.servers``, secrets in clear.
        replication_factor: replicas of a topic; -1 for the broker's default.
        secrets_dir, secrets_dir_in_worker: where a secret for the Connect worker is written, and
            the same directory as the worker sees it.
        secrets_mode: the mode of such a file.
    """

    kafka: dict[str, str]
    replication_factor: int
    connect_url: str
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
        ConfigurationError: CDCM-CONFIG-PASSWORD-FILE: a Kafka property's file cannot be used.
    """
    if settings.kafka is not None and settings.connect is not None:
        return Endpoints(
            kafka=settings.kafka.client_properties(),
            replication_factor=settings.kafka.replication_factor,
            connect_url=settings.connect.url,
            secrets_dir=settings.connect.secrets_dir,
            secrets_dir_in_worker=settings.connect.secrets_path,
            secrets_mode=0o640 if settings.connect.secrets_for_group else 0o600,
        )
    from cdc_migrator.stack import local

    info = local.info(stack_dir(settings))
    return Endpoints(
        kafka={"bootstrap.servers": info.bootstrap_servers},
        replication_factor=1,
        connect_url=info.connect_url,
        secrets_dir=info.secrets_dir,
        secrets_dir_in_worker=str(info.secrets_dir),
    )
