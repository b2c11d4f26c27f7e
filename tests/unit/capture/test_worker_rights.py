"""A connector that failed for want of a right says which; any other failure stays what it is."""

from __future__ import annotations

import pytest

from cdc_migrator.capture.worker_rights import lacking

# As a worker of Kafka 4.3 says them, without frames.
TRACES = {
    "Not authorized to describe topic(s) 'cdcm.shop.1.stream' on the brokers k:9093; Caused by: "
    "org.apache.kafka.common.errors.TopicAuthorizationException": "Write on the topic "
    "cdcm.shop.1.stream",
    "org.apache.kafka.common.errors.TopicAuthorizationException: Not authorized to access topics: "
    "[__debezium-heartbeat.cdcm.shop.1]": "Write on the topic __debezium-heartbeat.cdcm.shop.1",
    "org.apache.kafka.common.errors.TransactionalIdAuthorizationException: Transactional Id "
    "authorization failed.": "Write on the transactional-id <the worker's group.id>-team-a-0",
    "org.apache.kafka.common.errors.GroupAuthorizationException: Not authorized to access group: "
    "workers": "Read on the group workers",
}


@pytest.mark.parametrize("trace", TRACES)
def test_the_right_is_named(trace: str) -> None:
    """Operation and resource, as the ACLs are printed."""
    refused = lacking(trace, "team-a")
    assert refused is not None
    assert refused.code == "CDCM-CONNECTOR-DENIED"
    assert TRACES[trace] in refused.cause


def test_other_failures_are_no_matter_of_rights() -> None:
    """Also where a transaction of the source is spoken of."""
    for trace in ("", "FATAL: password authentication failed", "transactional id in use"):
        assert lacking(trace, "team-a") is None
