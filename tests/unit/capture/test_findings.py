"""Preflight's decisions from facts alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_migrator.capture import findings
from cdc_migrator.capture.findings import Severity
from cdc_migrator.databases.postgres.catalog import ServerFacts
from cdc_migrator.model.tables import ReplicaIdentity, Table, TableName

GOOD = ServerFacts(
    version_num=180000,
    version="18.0",
    database="app",
    encoding="UTF8",
    wal_level="logical",
    in_recovery=False,
    system_identifier="1",
    timeline=1,
    slots_used=0,
    slots_allowed=10,
    senders_used=0,
    senders_allowed=10,
    max_slot_wal_keep_bytes=None,
    superuser=True,
    may_replicate=True,
)


def of_source(**facts: object) -> list[str]:
    changed = replace(GOOD, **facts)  # type: ignore[arg-type]
    return [f.code for f in findings.source(changed, slot_exists=False, may_replicate=True)]


def test_a_good_source_has_no_findings() -> None:
    """Nothing is found where nothing is wrong."""
    assert of_source() == []


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"version_num": 140012, "version": "14.12"}, "CDCM-SOURCE-VERSION"),
        ({"wal_level": "replica"}, "CDCM-SOURCE-WAL-LEVEL"),
        ({"in_recovery": True}, "CDCM-SOURCE-STANDBY"),
        ({"slots_used": 10}, "CDCM-SOURCE-SLOTS"),
        ({"senders_used": 9}, "CDCM-SOURCE-SLOTS"),
        ({"encoding": "SQL_ASCII"}, "CDCM-SOURCE-ENCODING"),
        ({"max_slot_wal_keep_bytes": 1 << 30}, "CDCM-SOURCE-SLOT-LIMIT"),
    ],
)
def test_each_fault_of_the_source_is_found(facts: dict[str, object], code: str) -> None:
    """One fault, one finding."""
    assert of_source(**facts) == [code]


def test_a_slot_that_is_there_needs_no_room() -> None:
    """A running migration does not fail its own check."""
    full = replace(GOOD, slots_used=10, senders_used=10)

    assert findings.source(full, slot_exists=True, may_replicate=True) == []


def test_an_older_target_and_a_weak_role_are_refused() -> None:
    """A target must be as new as the source, and hold triggers and foreign keys off."""
    old = replace(GOOD, version_num=170004, version="17.4")

    found = findings.target(old, 180001, may_set_role=False)

    assert [f.code for f in found] == ["CDCM-TARGET-VERSION", "CDCM-TARGET-REPLICA-ROLE"]
    assert findings.target(GOOD, 180001, may_set_role=True) == []


def test_a_pattern_without_a_table_names_the_nearest() -> None:
    """A partitioned table's own name matches through its partitions."""
    parent = TableName("shop", "events")
    leaf = Table(TableName("shop", "events_2024"), (), (), ReplicaIdentity.FULL, parent, 0, 0)

    assert findings.missing(["shop.events"], [], [leaf]) == []
    (found,) = findings.missing(["shop.event"], [], [leaf])
    assert found.code == "CDCM-TABLES-MISSING"
    assert "shop.events" in found.remedy
    assert [f.code for f in findings.missing(None, [], [])] == ["CDCM-TABLES-NONE"]
    (warning,) = findings.missing(None, ["x.*"], [leaf])
    assert warning.severity is Severity.WARN


@pytest.mark.parametrize(
    ("version", "objections", "codes"),
    [
        ("3.7.0.Final", [], []),
        ("4.0.0.Final", [], []),
        ("3.10.1.Final", [], []),
        ("3.6.1.Final", [], ["CDCM-CONNECT-VERSION"]),
        (None, [], ["CDCM-CONNECT-PLUGIN"]),
        ("3.7.0.Final", ["off"], ["CDCM-CONNECT-EXACTLY-ONCE"]),
    ],
)
def test_the_workers_plugin(version: str | None, objections: list[str], codes: list[str]) -> None:
    """Debezium 3.7 or newer, in number's order, with exactly-once on."""
    assert [f.code for f in findings.plugin(version, objections, "x")] == codes
