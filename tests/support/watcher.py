"""Looks into the topic from outside: which transactions are open in it at this moment.

Shares no code with the decoder under test: plain JSON, uncommitted records included.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import orjson
from confluent_kafka import OFFSET_END, Consumer, TopicPartition


@dataclass
class OpenTransaction:
    """A BEGIN without its END so far."""

    xid: int
    rows: int = 0


@dataclass
class TopicWatcher:
    """Follows a topic's end in a thread of its own; use as a context manager."""

    bootstrap_servers: str
    topic: str
    open: OpenTransaction | None = None
    rebegun: int = 0
    records: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _ready: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> TopicWatcher:
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        assert self._ready.wait(30), "the watcher could not read the topic"
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join()

    def _follow(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "group.id": "watcher",
                "enable.auto.commit": False,
                "isolation.level": "read_uncommitted",
                "log_level": 0,
            }
        )
        partition = TopicPartition(self.topic, 0, OFFSET_END)
        consumer.assign([partition])
        consumer.get_watermark_offsets(TopicPartition(self.topic, 0), timeout=20)
        self._ready.set()
        try:
            while not self._stop.is_set():
                for message in consumer.consume(2000, 0.02):
                    value = message.value()
                    if message.error() is None and value is not None:
                        self._see(value)
        finally:
            consumer.close()

    def _see(self, value: bytes) -> None:
        event = orjson.loads(value)
        self.records += 1
        status = event.get("status")
        if status == "BEGIN":
            xid = int(event["id"].partition(":")[0])
            if self.open is not None:
                self.rebegun += 1
            self.open = OpenTransaction(xid)
        elif status == "END":
            self.open = None
        elif self.open is not None:
            self.open.rows += 1
