"""What lag exporters are shown never holds up the applier."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from cdc_migrator.model.outside import Brokers
from cdc_migrator.stream.consumer import HINT_SECONDS, StreamConsumer
from tests.support.live import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(60)]


def test_hint_beside_a_busy_reader_costs_nothing_and_arrives(stack: Any) -> None:
    """While one thread polls without a pause, hints of another return at once and are shown."""
    topic = group = f"hint-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers, "log_level": 0})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    offset = 0.0

    def clock() -> float:
        return time.monotonic() + offset

    ending = threading.Event()
    consumer = StreamConsumer(Brokers(stack.bootstrap_servers), topic, group, 0, clock=clock)
    asking = Consumer({"bootstrap.servers": stack.bootstrap_servers, "group.id": group})

    def read() -> None:
        while not ending.is_set():
            consumer.poll(1000, 0.01)

    def shown() -> int:
        return int(asking.committed([TopicPartition(topic, 0)], 10)[0].offset)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        took = 0.0
        for hint in range(1, 20):
            offset += HINT_SECONDS
            began = time.monotonic()
            consumer.hint(hint)
            took = max(took, time.monotonic() - began)
            wait_for("the hint to be shown", lambda hint=hint: shown() >= hint, 10)
        assert took < 0.005
    finally:
        ending.set()
        reader.join()
        consumer.close()
        asking.close()
        admin.delete_topics([topic])[topic].result(30)
