"""Show that capture works end to end: a marker committed on the source is seen in the topic."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress

import psycopg
from confluent_kafka import Consumer, KafkaError, TopicPartition

from cdc_migrator.capture.connect_rest import ConnectClient
from cdc_migrator.capture.topics import Topics
from cdc_migrator.capture.worker_rights import lacking
from cdc_migrator.clients.kafka import DENIED, QUIET, Right, denied, make
from cdc_migrator.control import markers
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.errors import Failed
from cdc_migrator.model.connector_failures import failure
from cdc_migrator.model.naming import Names
from cdc_migrator.model.outside import Brokers

# A task that is being started again still shows the failure of its former life for a moment.
_GRACE = 5.0


def prove_streaming(
    source: psycopg.Connection,
    client: ConnectClient,
    brokers: Brokers,
    names: Names,
    patience: float,
    redact: Callable[[str], str],
) -> float:
    """Seconds from the commit of a ping on the source to its record in the topic.

    Raises:
        Failed: CDCM-CONNECTOR-FAILED, or -RECORD-SIZE: the connector or its task failed, with
            its reason, or CDCM-CONNECTOR-SILENT: the ping did not arrive within `patience` seconds.
        Refused: CDCM-KAFKA-DENIED: we may not read the topic, or not as our group;
            CDCM-CONNECTOR-DENIED: the worker may not write it.
    """
    token = secrets.token_hex(16)
    consumer = make(
        Consumer,
        {
            **brokers.properties(),
            # That of the service: one group is all that needs rights.
            "group.id": names.group,
            "enable.auto.commit": "false",
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
        },
        QUIET,
    )
    try:
        start = Topics(brokers).end_offset(names.topic)
        consumer.assign([TopicPartition(names.topic, 0, start)])
        with speaking("source", "sending a ping down the stream"):
            markers.write(source, names.migration, "ping", token)
        began = time.monotonic()
        looked = began
        while time.monotonic() - began < patience:
            message = consumer.poll(0.2)
            error = message.error() if message is not None else None
            if error is not None and error.code() in DENIED:
                right = Right("Read", "topic", names.topic)
                if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                    right = Right("Read", "group", names.group)
                raise denied(right, f"reading the stream ({error.name()})")
            if message is not None and error is None:
                value = message.value()
                if value is not None and token.encode() in value:
                    return time.monotonic() - began
            if time.monotonic() - looked > 0.5:
                looked = time.monotonic()
                status = client.status(client.called(names))
                if status is not None and status.failed and looked - began > _GRACE:
                    if refused := lacking(status.trace, client.called(names)):
                        raise refused
                    if known := failure(status.trace):
                        raise Failed(known.code, known.cause, known.remedy)
                    raise Failed(
                        "CDCM-CONNECTOR-FAILED",
                        f"the connector {client.called(names)} failed: {redact(status.trace)}",
                        "Correct the cause, then run the same command again; it restarts the "
                        "connector.",
                    )
    finally:
        consumer.close()
        with suppress(psycopg.Error):  # one that stays does no harm
            source.execute("DELETE FROM cdc_migrator.marker WHERE token = %s", (token,))
    raise Failed(
        "CDCM-CONNECTOR-SILENT",
        f"a change committed on the source did not reach {names.topic} within {patience:.0f} s",
        "See the Connect worker's log (`cdc-migrator stack logs` for the local one) and the slot "
        "(`cdc-migrator capture status`), then run the same command again.",
    )
