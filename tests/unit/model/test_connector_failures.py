"""A connector's failure that is known is told with what to do; any other is left as it is."""

from __future__ import annotations

import pytest

from cdc_migrator.model.connector_failures import failure
from cdc_migrator.model.traces import summary

_TRACE = """org.apache.kafka.connect.errors.ConnectException: Unrecoverable exception from producer
\tat org.apache.kafka.connect.runtime.AbstractWorkerSourceTask.poll(AbstractWorkerSourceTask.java:1)
Caused by: org.apache.kafka.common.errors.RecordTooLargeException: {}
"""
_LONG = (
    "The message is 83886224 bytes when serialized which is larger than 67108864, which is the "
    "value of the max.request.size configuration."
)
_BUFFER = (
    "The message is 70000000 bytes when serialized which is larger than the total memory buffer "
    "you have configured with the buffer.memory configuration."
)
_BROKER = "The request included a message larger than the max message size the server will accept."


@pytest.mark.parametrize(
    ("said", "cause", "remedy"),
    [
        (_LONG, "a change of 83,886,224 bytes is larger than", "to 134217728 (128 MiB) or more"),
        (_BUFFER, "producer.override.buffer.memory allows", "to 134217728 (128 MiB) or more"),
        (_BROKER, "larger, compressed, than the brokers", "max.message.bytes of the topic"),
    ],
)
def test_a_change_that_is_too_large_names_what_to_raise(said: str, cause: str, remedy: str) -> None:
    """Each of the three limits by its name, with a value that is enough."""
    found = failure(summary(_TRACE.format(said)))
    assert found is not None
    assert found.code == "CDCM-CONNECTOR-RECORD-SIZE"
    assert cause in found.cause
    assert remedy in found.remedy
    assert "cdc-migrator capture start" in found.remedy


@pytest.mark.parametrize("trace", [None, "", "Connection to db1:5432 refused."])
def test_the_others_are_left(trace: str | None) -> None:
    """Nothing is made of what is not known."""
    assert failure(trace) is None
