"""The service's measurements survive the way through the control schema."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cdc_migrator.monitor.sample import ServiceSample, ServiceState
from tests.support.samples import SERVICE


def test_what_is_written_is_read_back() -> None:
    """Through real JSON, None included."""
    for sample in (SERVICE, ServiceSample(at=SERVICE.at, state=ServiceState.STANDBY)):
        assert ServiceSample.from_json(json.loads(json.dumps(sample.to_json()))) == sample


def test_another_releases_sample_is_read_as_far_as_it_is_known() -> None:
    """New keys are left aside; without time or state there is no sample."""
    written = SERVICE.to_json() | {"from_the_future": 1}
    del written["queue_bytes"]
    assert ServiceSample.from_json(written) == replace(SERVICE, queue_bytes=None)


@pytest.mark.parametrize("document", [None, 3, [], {}, {"at": "x", "state": "streaming"}])
def test_what_is_no_sample_is_none(document: object) -> None:
    """And no error: the rest of the status is still worth showing."""
    assert ServiceSample.from_json(document) is None
