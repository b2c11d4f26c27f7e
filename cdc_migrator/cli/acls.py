"""`init --acls`: the rights on Kafka that a migration needs, as commands or as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import printer

if TYPE_CHECKING:
    from cdc_migrator.capture.acls import Acl, Who
    from cdc_migrator.config.settings import Settings

_SERVICE_USER = "cdc-migrator"
_WORKER_USER = "connect"


@dataclass(frozen=True, slots=True)
class Users:
    """The options that only `--acls` has; None: as the settings say, or a default."""

    service: str | None = None
    worker: str | None = None
    worker_group: str | None = None


def print_acls(ctx: typer.Context, given: Users) -> None:
    """Print them for the migration of migration.yaml; nothing is reached or changed."""
    from cdc_migrator.capture import acls
    from cdc_migrator.capture.topics import SETTINGS
    from cdc_migrator.model.outside import TopicsMade, Workers

    configured = settings(ctx)
    workers, made, servers, replicas = Workers.at(), TopicsMade.OURS, "SERVERS", -1
    if configured.kafka is not None:
        from cdc_migrator.cli.endpoints import endpoints

        places = endpoints(configured)
        workers, made, servers = places.workers, places.brokers.topics, places.brokers.servers
        replicas = places.replication_factor
    own = acls.WorkerNames(group=given.worker_group or acls.WorkerNames().group)
    wanted = acls.needed(configured.name, made, workers, own)
    principals = {
        acls.Who.SERVICE: _principal(given.service or _sasl_user(configured) or _SERVICE_USER),
        acls.Who.WORKER: _principal(given.worker or _WORKER_USER),
    }
    topics = list(acls.topics_of(configured.name)) if made is TopicsMade.GIVEN else []
    out = printer(ctx)
    if not out.for_people:
        document: dict[str, Any] = {
            "acls": [one.as_dict(principals[one.who]) for one in wanted],
            "topics": [{"name": topic, "partitions": 1, "settings": SETTINGS} for topic in topics],
        }
        out.data(document)
        return
    for line in _script(wanted, principals, servers):
        typer.echo(line)
    if topics:
        typer.echo("\n# kafka.topics is `given`: these topics are made beforehand.")
    for topic in topics:
        typer.echo(acls.topic_command(topic, replicas, servers))


def _script(wanted: list[Acl], principals: dict[Who, str], servers: str) -> Iterator[str]:
    from cdc_migrator.capture import acls

    heads = {
        acls.Who.SERVICE: "What cdc-migrator itself needs.",
        acls.Who.WORKER: "What the Kafka Connect worker needs; a worker that runs has the first of "
        "these already. Names of its own topics: as its configuration says.",
    }
    for who, head in heads.items():
        yield f"# {head}"
        for one in wanted:
            if one.who is who:
                yield f"# {one.why}"
                yield acls.acl_command(one, principals[who], servers)
        yield ""


def _principal(user: str) -> str:
    return user if ":" in user else f"User:{user}"


def _sasl_user(configured: Settings) -> str | None:
    kafka = configured.kafka
    user = kafka.properties.get("sasl.username") if kafka else None
    return user.get_secret_value() if user else None
