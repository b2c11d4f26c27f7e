"""Records from librdkafka by its own interface: a poll at a time, with no object for each.

confluent-kafka makes a Python object for every message, which costs more than all else that is done
with a plain event. This asks the library that it brings, through its public interface (rdkafka.h).
"""

from __future__ import annotations

from collections.abc import Mapping
from ctypes import (
    CDLL,
    POINTER,
    Structure,
    byref,
    c_char,
    c_char_p,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_void_p,
    cast,
    create_string_buffer,
)
from functools import cache
from typing import Any

from confluent_kafka import KafkaError, KafkaException, cimpl

from cdc_migrator.native.library import addresses, library
from cdc_migrator.native.records import Records

_CONSUMER = 1  # RD_KAFKA_CONSUMER
_ERROR_ROOM = 512
# librdkafka's functions: result and arguments.
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "rd_kafka_conf_new": (c_void_p, ()),
    "rd_kafka_conf_destroy": (None, (c_void_p,)),
    "rd_kafka_conf_set": (c_int, (c_void_p, c_char_p, c_char_p, c_void_p, c_size_t)),
    "rd_kafka_conf_set_error_cb": (None, (c_void_p, c_void_p)),
    "rd_kafka_conf_set_log_cb": (None, (c_void_p, c_void_p)),
    "rd_kafka_conf_set_opaque": (None, (c_void_p, c_void_p)),
    "rd_kafka_new": (c_void_p, (c_int, c_void_p, c_void_p, c_size_t)),
    "rd_kafka_poll_set_consumer": (c_int32, (c_void_p,)),
    "rd_kafka_topic_partition_list_new": (c_void_p, (c_int,)),
    "rd_kafka_topic_partition_list_add": (c_void_p, (c_void_p, c_char_p, c_int32)),
    "rd_kafka_topic_partition_list_set_offset": (
        c_int32,
        (c_void_p, c_char_p, c_int32, c_int64),
    ),
    "rd_kafka_topic_partition_list_destroy": (None, (c_void_p,)),
    "rd_kafka_assign": (c_int32, (c_void_p, c_void_p)),
    "rd_kafka_queue_get_consumer": (c_void_p, (c_void_p,)),
    "rd_kafka_queue_destroy": (None, (c_void_p,)),
    "rd_kafka_sasl_set_credentials": (c_void_p, (c_void_p, c_char_p, c_char_p)),
    "rd_kafka_error_destroy": (None, (c_void_p,)),
    "rd_kafka_consumer_close": (c_int32, (c_void_p,)),
    "rd_kafka_destroy": (None, (c_void_p,)),
}
# What the library in C calls by itself, in the order of `functions` in fetch.c.
_CALLED = (
    "rd_kafka_consume_batch_queue",
    "rd_kafka_message_destroy",
    "rd_kafka_message_timestamp",
    "rd_kafka_message_headers",
    "rd_kafka_header_get_all",
)


class _Note(Structure):
    """`note` in fetch.c."""

    _fields_ = (("place", c_int64), ("code", c_int64), ("said", c_char * 240))


@cache
def _librdkafka() -> CDLL | None:
    """The library that confluent-kafka has loaded; None where its functions are not to be had."""
    try:
        loaded = CDLL(cimpl.__file__)
        for name in _CALLED:
            getattr(loaded, name)
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(loaded, name)
            function.restype = result
            function.argtypes = arguments
    except (OSError, AttributeError):
        return None
    return loaded


class Fetcher:
    """A consumer of one partition. Not for several threads at once.

    Args:
        settings: librdkafka's, as another client has taken them.
        offset: the first to read.
        most: records of one poll.

    Raises KafkaException where librdkafka does not make it, MemoryError.
    """

    def __init__(
        self, settings: Mapping[str, object], topic: str, partition: int, offset: int, most: int
    ) -> None:
        kafka, lib = _librdkafka(), library()
        assert kafka is not None
        assert lib is not None
        self._kafka, self._lib = kafka, lib
        self._client = self._queue = None
        self._handle = lib.cdcm_fetcher_new(addresses(kafka, _CALLED), most)
        if not self._handle:
            raise MemoryError
        try:
            self._client = self._made(settings)
            kafka.rd_kafka_poll_set_consumer(self._client)
            self._assign(topic.encode(), partition, offset)
            self._queue = kafka.rd_kafka_queue_get_consumer(self._client)
            lib.cdcm_fetcher_queue(self._handle, self._queue)
        except BaseException:
            self.close()
            raise

    def fetch(
        self, most: int, first: float, rest: float
    ) -> tuple[Records, list[tuple[int, KafkaError]]]:
        """Up to `most` records: `first` seconds for one to come, then `rest` for those behind it.

        Beside them what is no record, with the number of records in front of it: errors, and the
        end of the partition.

        Raises MemoryError, KafkaException.
        """
        polled = Records()
        found = self._lib.cdcm_fetch(
            self._handle, most, round(first * 1000), round(rest * 1000), byref(polled.members)
        )
        if found == -1:
            raise MemoryError
        if found < 0:
            raise KafkaException(KafkaError(KafkaError._FAIL, "the queue cannot be asked"))
        return polled, self._notes()

    def _notes(self) -> list[tuple[int, KafkaError]]:
        count = c_int64()
        notes = self._lib.cdcm_notes(self._handle, byref(count))
        if not count.value:
            return []
        some = cast(notes, POINTER(_Note))[: count.value]
        return [
            (
                one.place,
                KafkaError(
                    one.code,
                    one.said.decode(errors="replace"),
                    fatal=one.code == KafkaError._FATAL,
                ),
            )
            for one in some
        ]

    def set_sasl_credentials(self, user: str, password: str) -> None:
        """For the next connection."""
        failed = self._kafka.rd_kafka_sasl_set_credentials(
            self._client, user.encode(), password.encode()
        )
        if failed:
            self._kafka.rd_kafka_error_destroy(failed)

    def close(self) -> None:
        """May be called twice."""
        if self._queue:
            self._kafka.rd_kafka_queue_destroy(self._queue)
        if self._client:
            self._kafka.rd_kafka_consumer_close(self._client)
            self._kafka.rd_kafka_destroy(self._client)
        if self._handle:
            self._lib.cdcm_fetcher_free(self._handle)
        self._client = self._queue = self._handle = None

    def _made(self, settings: Mapping[str, object]) -> int:
        kafka, lib = self._kafka, self._lib
        said = create_string_buffer(_ERROR_ROOM)
        conf = kafka.rd_kafka_conf_new()
        for name, value in settings.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            if kafka.rd_kafka_conf_set(conf, name.encode(), text.encode(), said, _ERROR_ROOM):
                kafka.rd_kafka_conf_destroy(conf)
                raise _refused(said.value)
        kafka.rd_kafka_conf_set_error_cb(conf, cast(lib.cdcm_note_error, c_void_p))
        kafka.rd_kafka_conf_set_log_cb(conf, cast(lib.cdcm_no_log, c_void_p))
        kafka.rd_kafka_conf_set_opaque(conf, self._handle)
        client: int | None = kafka.rd_kafka_new(_CONSUMER, conf, said, _ERROR_ROOM)
        if not client:
            kafka.rd_kafka_conf_destroy(conf)
            raise _refused(said.value)
        return client

    def _assign(self, topic: bytes, partition: int, offset: int) -> None:
        kafka = self._kafka
        partitions = kafka.rd_kafka_topic_partition_list_new(1)
        try:
            kafka.rd_kafka_topic_partition_list_add(partitions, topic, partition)
            kafka.rd_kafka_topic_partition_list_set_offset(partitions, topic, partition, offset)
            code = kafka.rd_kafka_assign(self._client, partitions)
        finally:
            kafka.rd_kafka_topic_partition_list_destroy(partitions)
        if code:
            raise KafkaException(KafkaError(code))


def _refused(said: bytes) -> KafkaException:
    return KafkaException(KafkaError(KafkaError._INVALID_ARG, said.decode(errors="replace")))


def is_there() -> bool:
    """Whether records can be fetched here in this way."""
    return library() is not None and _librdkafka() is not None
