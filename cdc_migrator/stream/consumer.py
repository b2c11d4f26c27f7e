"""The one place that speaks to Kafka: reads one ordered partition from a given offset.

The position belongs to the target's progress row, so nothing here decides where to read: the
offset is given, and one that the log does not hold is an error that names the gap, never a
reset. Kafka's own committed offset is written now and then, for lag exporters only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from cdc_migrator.clients.kafka import DENIED, Ear, Right, denied, explained, make, renew_login
from cdc_migrator.errors import Failed, MigratorError, Refused, StreamHalted
from cdc_migrator.model.outside import Brokers
from cdc_migrator.native.records import Records
from cdc_migrator.stream import fetcher
from cdc_migrator.stream.fetcher import Fetcher

PARTITION = 0
HINT_SECONDS = 5.0
# Of one poll.
MOST_MESSAGES = 10_000
_HEARSAY_SECONDS = 2.0
_TURN_SECONDS = 1.0
# Records of one answer come at once; so long others of the same moment are waited for.
_REST_SECONDS = 0.001

_log = logging.getLogger(__name__)

_SETTINGS: dict[str, str | int | bool] = {
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "allow.auto.create.topics": False,
    "check.crcs": True,
    # Read-ahead in memory; one fetch more (1 MiB on the wire, decompressed) may be on top.
    "queued.max.messages.kbytes": 32 * 1024,
    "max.partition.fetch.bytes": 1024 * 1024,
    "receive.message.max.bytes": 1_000_000_000,
    # A waiting fetch can miss that a transaction has ended: the default lets it wait half a second.
    "fetch.wait.max.ms": 50,
    # The default second of pause whenever the read-ahead is full would stall the reader.
    "fetch.queue.backoff.ms": 10,
    "fetch.error.backoff.ms": 100,
    "reconnect.backoff.max.ms": 1000,
    # Every failed attempt to reconnect would be logged; `waiting` and one warning say it.
    "log_level": 2,
}

_MISSING = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_ID,
}
_OUTSIDE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll brought, in the order of the log.

    `at_end` says that the broker has shown the end of the partition after the last message:
    there is nothing more to wait for now.
    """

    messages: Sequence[Message] | Records
    at_end: bool


class StreamConsumer:
    """Reads partition 0 of `topic` from `start_offset` on.

    Args:
        brokers: their properties are read when the reader is made, and user and password once
            more whenever the brokers do not accept them; what this module relies on cannot be
            overridden by them.
        topic: must exist and have one partition.
        group: consumer group under which progress is shown to lag exporters.
        start_offset: next offset to read, as stored on the target.
        start_timeout: seconds to wait for the first answer of a broker.

    Raises:
        ConfigurationError: CDCM-KAFKA-SETTINGS, CDCM-CONFIG-PASSWORD-FILE.
        Failed: CDCM-KAFKA-UNREACHABLE: no broker answered in time.
        Refused: CDCM-STREAM-TOPIC-MISSING, CDCM-STREAM-PARTITIONS, CDCM-KAFKA-DENIED,
            CDCM-KAFKA-AUTH, CDCM-KAFKA-TLS.
        StreamHalted: CDCM-STREAM-GAP: the log does not hold `start_offset`.
    """

    def __init__(
        self,
        brokers: Brokers,
        topic: str,
        group: str,
        start_offset: int,
        *,
        start_timeout: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._brokers = brokers
        self._topic = topic
        self._group = group
        self._next_offset = start_offset
        self._clock = clock
        self._hinted_at = clock()
        self._hint: int | None = None
        self._at_end = False
        self._waiting: str | None = None
        self._failure: MigratorError | None = None
        self._ear = Ear()
        self._login_refused = False
        self._settings = {**brokers.properties(), **_SETTINGS, "group.id": group}
        self._fetcher: Fetcher | None = None
        self._consumer = make(
            Consumer,
            {**self._settings, "error_cb": self._note, "on_commit": _ignore_hint_result},
            _log,
        )
        try:
            self._require_one_partition(start_timeout)
            self._require_offset_in_log(start_timeout)
            self._fetcher = self._opened(start_offset)
        except BaseException:
            self.close()
            raise

    @property
    def waiting(self) -> str | None:
        """The error for which reading stands still, by its name; None while brokers answer."""
        return self._waiting

    def poll(self, max_messages: int, timeout: float) -> Polled:
        """Up to `max_messages` that are there; waits `timeout` (seconds) for the first.

        A broker that went away is waited for: nothing comes and `waiting` says why.

        Raises:
            StreamHalted: CDCM-STREAM-GAP: retention has overtaken the reader.
            Refused: CDCM-STREAM-TOPIC-MISSING, CDCM-KAFKA-DENIED.
            Failed: CDCM-KAFKA-FATAL: the client cannot go on.
        """
        if self._failure is not None:
            raise self._failure
        self._pass_hint_on()
        self._renew_login()
        messages, others = self._fetched(max_messages, timeout)
        self._at_end = self._at_end and not messages
        for place, error in others:
            if error.code() != KafkaError._PARTITION_EOF:
                self._failure = self._failure or self._final(error)
                continue
            self._at_end = place == len(messages)
            self._waiting = None
        if messages:
            last = messages.last_offset if isinstance(messages, Records) else messages[-1].offset()
            self._next_offset = (last or 0) + 1
            self._waiting = None
            self._ear.forget()
        elif self._failure is not None:
            raise self._failure
        return Polled(messages, self._at_end)

    def _fetched(
        self, most: int, timeout: float
    ) -> tuple[Sequence[Message] | Records, list[tuple[int, KafkaError]]]:
        """Records, and what came among them: with how many records in front of it."""
        if self._fetcher is not None:
            self._consumer.poll(0)  # has no records, but errors, and how the last hint went
            return self._fetcher.fetch(most, timeout, _REST_SECONDS)
        messages: list[Message] = []
        others: list[tuple[int, KafkaError]] = []
        # The client's call for many waits the whole time for all of them.
        came = self._consumer.consume(1, timeout)
        if came:
            came += self._consumer.consume(most - 1, _REST_SECONDS)
        for message in came:
            error = message.error()
            if error is None:
                messages.append(message)
            else:
                others.append((len(messages), error))
        return messages, others

    def _opened(self, offset: int) -> Fetcher | None:
        """Start to read; None where it is for `_consumer` to do."""
        if fetcher.is_there():
            try:
                return Fetcher(self._settings, self._topic, PARTITION, offset, MOST_MESSAGES)
            except KafkaException as exc:
                _log.debug("fetching by messages: %s", exc.args[0].name())
        self._consumer.assign([TopicPartition(self._topic, PARTITION, offset)])
        return None

    def hint(self, next_offset: int) -> None:
        """Show lag exporters how far the target is; every few seconds, and never an error.

        Any thread may call it: the next poll passes it on.
        """
        self._hint = next_offset

    def _pass_hint_on(self) -> None:
        # By the polling thread only. The client serves one thread at a time and is not fair:
        # beside one that polls without pause, another may wait for its turn for ever.
        now = self._clock()
        next_offset = self._hint
        if next_offset is None or now - self._hinted_at < HINT_SECONDS:
            return
        self._hint, self._hinted_at = None, now
        try:
            self._consumer.commit(
                offsets=[TopicPartition(self._topic, PARTITION, next_offset)], asynchronous=True
            )
        except KafkaException as exc:
            _ignore_hint_result(exc.args[0], [])

    def close(self) -> None:
        """Leave the broker; may be called twice."""
        if self._fetcher is not None:
            self._fetcher.close()
        self._consumer.close()

    def _require_one_partition(self, timeout: float) -> None:
        began = time.monotonic()
        while True:
            try:
                topics = self._consumer.list_topics(self._topic, timeout=_TURN_SECONDS).topics
            except KafkaException:
                self._consumer.poll(0)  # delivers why, such as a refused password, to `_note`
                if not self._ear.final and time.monotonic() - began < timeout:
                    continue
                raise self._unreachable() from None
            metadata = topics[self._topic]
            if metadata.error is None:
                break
            waited = time.monotonic() - began
            # A broker may hear of a topic that was made a moment ago a little later.
            hearsay = metadata.error.code() in _MISSING and waited < _HEARSAY_SECONDS
            final = self._final(metadata.error)
            if final is not None and not hearsay:
                raise final
            if waited > timeout:  # e.g. no leader elected
                self._note(metadata.error)
                raise self._unreachable()
            time.sleep(0.1)
        if len(metadata.partitions) != 1:
            raise Refused(
                "CDCM-STREAM-PARTITIONS",
                f"topic {self._topic} has {len(metadata.partitions)} partitions; one ordered "
                "stream needs exactly one, and adding one to a topic in use breaks its order",
                "Start the migration anew: `cdc-migrator abort`, then `cdc-migrator migrate`.",
            )

    def _require_offset_in_log(self, timeout: float) -> None:
        try:
            low, high = self._watermarks(timeout)
        except KafkaException as exc:
            self._note(exc.args[0])
            raise self._unreachable() from None
        if not low <= self._next_offset <= high:
            raise self._gap(low, high)

    def _watermarks(self, timeout: float) -> tuple[int, int]:
        partition = TopicPartition(self._topic, PARTITION)
        low, high = self._consumer.get_watermark_offsets(partition, timeout, cached=False)
        return low, high

    def _final(self, error: KafkaError) -> MigratorError | None:
        """What ends the reading; None where librdkafka goes on by itself."""
        code = error.code()
        if code in _OUTSIDE:
            try:
                return self._gap(*self._watermarks(5.0))
            except KafkaException:
                return self._gap(None, None)
        if code in _MISSING:
            return Refused(
                "CDCM-STREAM-TOPIC-MISSING",
                f"topic {self._topic} does not exist on {self._brokers.servers}",
                "Check kafka.bootstrap_servers. If the topic was deleted, changes are lost: "
                "`cdc-migrator migrate --new-capture` captures anew.",
            )
        if code in DENIED:
            right = Right("Read", "topic", self._topic)
            if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
                right = Right("Read", "group", self._group)
            return denied(right, f"reading the stream ({error.name()})")
        if error.fatal():
            return Failed(
                "CDCM-KAFKA-FATAL",
                f"the Kafka client cannot go on ({error.name()})",
                "Start the command again; it goes on from the stored position.",
            )
        self._note(error)
        return None

    def _note(self, error: KafkaError) -> None:
        """Errors that librdkafka handles by itself: it reconnects; we say that we wait."""
        if self._waiting is None:
            _log.warning("kafka is not answering: %s", error.name())
        self._waiting = error.name()
        self._ear(error)
        self._login_refused = self._login_refused or self._ear.login_refused

    def _renew_login(self) -> None:
        # Not in the callback: the client is in its own hands there.
        if self._login_refused:
            self._login_refused = False
            self._ear.forget()
            if self._fetcher is not None:
                renew_login(self._fetcher, self._brokers)
            if renew_login(self._consumer, self._brokers):
                _log.warning("kafka refused the login: trying the present one")

    def _unreachable(self) -> MigratorError:
        self._consumer.poll(0)  # delivers why, such as a refused password, to `_note`
        return explained(self._brokers.servers, None, "an answer", heard=self._ear.told)

    def _gap(self, low: int | None, high: int | None) -> StreamHalted:
        wanted = self._next_offset
        if low is None or high is None:
            what = "the log does not hold it"
        elif wanted < low:
            what = f"the log begins at {low}: offsets {wanted} to {low - 1} are gone (retention?)"
        else:
            what = f"the log ends at {high}: the topic was deleted and made again, or cut"
        return StreamHalted(
            "CDCM-STREAM-GAP",
            f"The stored position is offset {wanted}, but {what}",
            f"{self._topic}[{PARTITION}]@{wanted}",
            "Nothing past this position was applied. `cdc-migrator migrate --new-capture` captures "
            "anew: the target's rows stay, and only what differs is written.",
        )


def _ignore_hint_result(error: KafkaError | None, partitions: list[TopicPartition]) -> None:
    if error is not None:
        _log.debug("progress hint for %d partitions failed: %s", len(partitions), error.name())
