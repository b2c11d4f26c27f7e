"""Leave what earlier generations of a migration's capture have made: nothing can come of it.

The connector goes first, so that nothing takes the slot again or makes the topic anew. What is gone
already is no error: whoever was killed here types the same command.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import psycopg

from cdc_migrator.capture import secrets
from cdc_migrator.capture import slot as slots
from cdc_migrator.capture.connect_rest import ConnectClient
from cdc_migrator.capture.connector import OWNER
from cdc_migrator.capture.topics import Topics
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.errors import Refused
from cdc_migrator.model.naming import Names


def leave(
    source: psycopg.Connection,
    capture: psycopg.Connection,
    client: ConnectClient,
    topics: Topics,
    names: Names,
    owner: str,
    secrets_dir: Path,
    step: Callable[[str], None],
) -> None:
    """Remove the connectors, slots and topics of the generations before this one.

    Args:
        source: the server that is captured from now on; another one, that was left, keeps its own.
        capture: there, as the connector's own login, to whom slots and their sessions belong.
        owner: by which the source knows whose the migration of this name is.

    Raises:
        Refused: CDCM-SOURCE-NAME-TAKEN: what is there belongs to another migration of this name.
        Failed: CDCM-SLOT-BUSY, CDCM-CONNECT-UNREACHABLE, CDCM-KAFKA-UNREACHABLE.
    """
    with speaking("source", "reading whose the migration is"):
        slots.require_ours(source, names, owner)
    for connector in client.names():
        # By what it writes to: its name may be the user's choice.
        there = client.config(connector) or {}
        prefix = there.get("topic.prefix", "")
        if there.get(OWNER) == owner and _is_former(
            prefix, rf"cdcm\.{names.migration}\.(\d+)", names
        ):
            step(f"removing the connector {connector}")
            # Its offsets are reset when one of this name is made again.
            try:
                client.stop(connector)
                client.reset_offsets(connector)
            except Refused:
                pass
            client.delete(connector)
    for file in secrets.of_migration(secrets_dir, names.migration):
        if _is_former(file.name.partition(".")[0], rf"cdcm-{names.migration}-(\d+)", names):
            file.unlink(missing_ok=True)
    with speaking("source", "removing the former replication slot"):
        for slot in slots.ours(source, names.migration):
            if _is_former(slot, rf"cdcm_{names.migration}_(\d+)", names):
                step(f"removing the replication slot {slot}")
                slots.drop(capture, slot)
        slots.move_on(source, names, owner)
    if topics.given:
        return  # who made them removes them
    pattern = rf"(?:__debezium-heartbeat\.)?cdcm\.{names.migration}\.(\d+)(?:\..*)?"
    for topic in topics.delete(one for one in topics.names() if _is_former(one, pattern, names)):
        step(f"removed the topic {topic}")


def _is_former(name: str, pattern: str, names: Names) -> bool:
    found = re.fullmatch(pattern, name)
    return found is not None and int(found[1]) < names.generation
