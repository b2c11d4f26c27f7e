"""What librdkafka says becomes a code that tells what to do."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from cdc_migrator.clients.kafka import Ear, Right, explained

ALERT = (
    "ssl://k:9093/bootstrap: Receive failed: error:0A000412:SSL routines::ssl/tls alert bad "
    "certificate: SSL alert number 42 (after 3ms in state APIVERSION_QUERY)"
)
CASES = {
    "CDCM-KAFKA-TLS": (KafkaError._TRANSPORT, ALERT),
    "CDCM-KAFKA-AUTH": (KafkaError._AUTHENTICATION, "sasl_ssl://k:9093/1: SASL error"),
    "CDCM-KAFKA-UNREACHABLE": (KafkaError._TRANSPORT, "Connect failed: refused"),
}


@pytest.mark.parametrize("code", CASES)
def test_what_was_heard_tells_why_time_was_up(code: str) -> None:
    """Also when all brokers are said to be down behind it."""
    ear = Ear()
    ear(KafkaError(*CASES[code]))
    ear(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert ear.final is (code != "CDCM-KAFKA-UNREACHABLE")
    told = explained("k:9093", None, "an answer", heard=ear.told)
    assert told.code == code
    assert "ssl://" not in told.cause


def test_a_right_that_is_missing_is_named() -> None:
    """Operation and resource."""
    error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "denied")
    told = explained("k:9093", error, "reading", Right("Read", "topic", "cdcm.shop.1.stream"))
    assert told.code == "CDCM-KAFKA-DENIED"
    assert "Read on the topic cdcm.shop.1.stream" in told.cause
