"""Records that are fetched without an object for each are what messages would have been."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.outside import Brokers
from cdc_migrator.native.records import Records
from cdc_migrator.stream import fetcher
from cdc_migrator.stream.consumer import StreamConsumer

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]

Seen = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]] | None, int]
Sent = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]

SENT: list[Sent] = [
    (b'{"id":1}', b'{"op":"c"}', []),
    (None, b"no key", []),
    (b"no value", None, []),
    (b"", b"", []),
    (b"moved", b'{"op":"d"}', [("__debezium.newkey", b'{"id":2}')]),
    (b"two", b"\x00\xff" * 1000, [("a", b""), ("\u00fc", b"\x00"), ("none", None)]),
    (b"last", b"x" * 300_000, []),
]


@pytest.fixture(params=["fetched", "messages"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How records come: by the library, or as confluent-kafka's objects where that is not there."""
    if request.param == "messages":
        monkeypatch.setattr(fetcher, "is_there", lambda: False)
    else:
        assert fetcher.is_there()
    return str(request.param)


@pytest.fixture
def topic(stack: Any) -> Iterator[str]:
    """One with `SENT`, each run of three in a transaction of Kafka's."""
    name = f"fetch-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers, "log_level": 0})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)
    producer = Producer(
        {
            "bootstrap.servers": stack.bootstrap_servers,
            "transactional.id": name,
            "compression.type": "lz4",
        }
    )
    producer.init_transactions(30)
    for begin in range(0, len(SENT), 3):
        for aborted in (True, False):
            producer.begin_transaction()
            for key, value, headers in SENT[begin : begin + 3]:
                sent = list(headers) or None
                producer.produce(name, value, key, 0, headers=sent, timestamp=1_700_000_000_000)
            if aborted:
                producer.abort_transaction(30)
            else:
                producer.commit_transaction(30)
    yield name
    admin.delete_topics([name])[name].result(30)


def read(consumer: StreamConsumer) -> list[Seen]:
    """All up to the end of the topic, as messages show it."""
    seen: list[Seen] = []
    at_end = False
    while not at_end:
        polled = consumer.poll(2, 0.05)
        at_end = polled.at_end
        seen += [
            (one.offset() or 0, one.key(), one.value(), one.headers() or None, one.timestamp()[1])
            for one in polled.messages
        ]
    return seen


def consumer(stack: Any, topic: str, offset: int = 0) -> StreamConsumer:
    return StreamConsumer(Brokers(stack.bootstrap_servers), topic, topic, offset)


def test_what_was_committed_comes_whole_and_in_order(stack: Any, topic: str, way: str) -> None:
    reading = consumer(stack, topic)
    try:
        seen = read(reading)
    finally:
        reading.close()

    assert [(key, value, headers or []) for _, key, value, headers, _ in seen] == SENT
    assert {sent_ms for *_, sent_ms in seen} == {1_700_000_000_000}
    offsets = [offset for offset, *_ in seen]
    assert offsets == sorted(set(offsets))
    assert way in ("fetched", "messages")


def test_reading_begins_where_it_is_told(stack: Any, topic: str, way: str) -> None:
    first = consumer(stack, topic)
    everything = read(first)
    first.close()
    second = consumer(stack, topic, everything[4][0])
    try:
        assert read(second) == everything[4:]
    finally:
        second.close()
    assert way in ("fetched", "messages")


def test_retention_that_overtakes_the_reader_halts_it(stack: Any, topic: str, way: str) -> None:
    """What was read ahead is given; what is behind it and gone is named."""
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers})
    noise = os.urandom(500_000)
    for _ in range(120):
        producer.produce(topic, noise, partition=0)
    assert producer.flush(30) == 0
    reading = consumer(stack, topic)
    try:
        seen: list[Any] = []
        while len(seen) < 10:
            more = list(reading.poll(10 - len(seen), 5).messages)
            assert more
            seen += more
        admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers, "log_level": 0})
        for one in admin.delete_records([TopicPartition(topic, 0, -1)]).values():
            one.result(30)
        with pytest.raises(StreamHalted) as halt:
            read(reading)
    finally:
        reading.close()
    assert halt.value.code == "CDCM-STREAM-GAP"
    assert "retention" in halt.value.cause
    assert way in ("fetched", "messages")


def test_records_made_of_messages_are_those_messages() -> None:
    """Headers, absent keys and values, and bytes of any kind go in and come out again."""

    class Message:
        def __init__(self, offset: int, sent: Sent) -> None:
            self._offset = offset
            self._sent = sent

        def offset(self) -> int:
            return self._offset

        def timestamp(self) -> tuple[int, int]:
            return 1, 7

        def key(self) -> bytes | None:
            return self._sent[0]

        def value(self) -> bytes | None:
            return self._sent[1]

        def headers(self) -> list[tuple[str, bytes | None]] | None:
            return self._sent[2] or None

    messages = [Message(place * 2, sent) for place, sent in enumerate(SENT)]
    records = Records.of(messages)

    assert [
        (one.offset(), one.timestamp()[1], one.key(), one.value(), one.headers() or [])
        for one in records
    ] == [(place * 2, 7, *sent) for place, sent in enumerate(SENT)]
    assert records.last_offset == 2 * (len(SENT) - 1)
