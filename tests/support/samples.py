"""Samples for the tests of this directory: a stream in good order, to be changed as needed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cdc_migrator.control.dead_letters import Standing
from cdc_migrator.control.freshness import Freshness
from cdc_migrator.control.inspection import Part
from cdc_migrator.control.migration import Phase
from cdc_migrator.monitor.sample import (
    CatchUp,
    ConnectorSample,
    FenceSample,
    LoadSample,
    OwnerSample,
    ProofSample,
    RetentionSample,
    Sample,
    ServerSample,
    ServiceSample,
    ServiceState,
    SlotSample,
    StreamSample,
)
from cdc_migrator.monitor.schema_sample import SchemaSample
from cdc_migrator.monitor.table_sample import TableSample

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

SERVICE = ServiceSample(
    at=NOW,
    state=ServiceState.STREAMING,
    lag_seconds=0.05,
    events_pending=0,
    at_end=True,
    transactions_per_second=310.0,
    events_per_second=1200.0,
    rss_bytes=100 << 20,
    queue_bytes=0,
    capture_seconds=0.03,
    delivery_seconds=0.02,
    records_applied_per_second=1900.0,
    records_arriving_per_second=1910.0,
    wal_bytes_per_second=2000.0,
)

TABLES = (
    TableSample("shop.orders", "shop.orders", "loaded", 100, 120, 4096, 7, 5, 3, 1),
    TableSample("shop.people", "shop.people", "loaded", 50, 50, 2048, 0, 0, 0, 0),
)


INSPECTED: dict[str, dict[str, Any]] = {
    "schema": {"errors": 0, "warnings": 0, "differences": []},
    "constraints": {"errors": 0, "warnings": 0, "differences": []},
    "sequences": {"sequences": 3, "to_set": 2, "failed": []},
    "source": {"obstacles": [], "transactions": [], "sees_all": True, "not_owned": []},
    "target": {"in_recovery": False, "read_only": False, "not_owned": []},
    "preparations": {
        "backup": {
            "kind": "dump",
            "place": "/backups/1",
            "taken_at": (NOW - timedelta(hours=2)).isoformat(),
        },
        "rehearsal": {"attempt": 1, "ended_at": NOW.isoformat(), "hooks": "d1"},
    },
    "validation": {
        "run": {
            "id": 3,
            "rules": "r1",
            "aligned": True,
            "passed": True,
            "ended_at": (NOW - timedelta(hours=2)).isoformat(),
            "counted": {"blocker": 4, "warning": 2},
            "not_passed": {"blocker": 0, "warning": 1},
            "against": [
                {"name": "w", "severity": "warning", "status": "failed", "reason": "1 row"}
            ],
        },
    },
}


# How two rules stand, as `service.watching` shows them: one has fired, one is not known.
WATCHED: tuple[dict[str, Any], ...] = (
    {
        "rule": "error_rate",
        "kind": "error_rate",
        "action": "rollback",
        "number": 0.04,
        "threshold": 0.01,
        "below": False,
        "for_seconds": 30.0,
        "state": "fired",
        "since": NOW.isoformat(),
        "long_unknown": False,
        "why": None,
        "fired_at": NOW.isoformat(),
        "acted": False,
        "error": {"code": "CDCM-WATCH-NO-WAY-BACK", "cause": "there is none", "remedy": "look"},
    },
    {
        "rule": "latency",
        "kind": "latency",
        "action": "alert",
        "number": 3.5,
        "threshold": None,
        "below": False,
        "for_seconds": 30.0,
        "state": "unknown",
        "since": NOW.isoformat(),
        "long_unknown": True,
        "why": "no baseline",
        "fired_at": None,
        "acted": None,
        "error": None,
    },
)


def inspected(**changes: dict[str, Any]) -> dict[str, Part]:
    """A minute ago everything was in order, but for these changes of parts."""
    at = NOW - timedelta(minutes=1)
    return {name: Part({**found, **changes.get(name, {})}, at) for name, found in INSPECTED.items()}


def streaming(**changes: Any) -> Sample:
    """A migration that streams, everything measured."""
    sample = Sample(
        at=NOW,
        migration="shop",
        generation=1,
        phase=Phase.STREAM,
        tables=TABLES,
        load=LoadSample(1.0, 12.0),
        stream=StreamSample(
            "cdcm.shop.1.stream", 90, 4242, NOW - timedelta(seconds=1), NOW, 30, 2, 0
        ),
        owner=OwnerSample("me@here:1", 0.5, SERVICE),
        slot=SlotSample("cdcm_shop_1", True, True, "reserved", 5 << 20, None, "0/1A", 4096),
        connector=ConnectorSample(
            "cdcm-shop-1", True, "RUNNING", ("RUNNING",), None, "worker:8083"
        ),
        end_offset=100,
        target_ahead=0.0,
        lag_seconds=0.05,
        events_pending=0,
        pending_exact=True,
        not_added=(),
        fence=FenceSample("up", (), ()),
        proofs=ProofSample(NOW, 12, 2, 0, 0, 0),
        freshness=Freshness(NOW, None),
        inspection=inspected(),
        source_ahead=0.0,
        wal_bytes_per_second=2000.0,
        catch_up=CatchUp(0.0, 1900.0, 1910.0),
        retention=RetentionSample(None, None, False, 0),
        source_server=ServerSample(12, 100, 1 << 30),
        target_server=ServerSample(9, 100, 1 << 30, 0, 0.0),
        parked=Standing(0, 0, 0, 0, None),
        schema=SchemaSample((), ()),
    )
    return replace(sample, **changes)
