"""Preflight's decisions from facts alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_migrator.capture.checks import connect, here, kafka, source, tables, target
from cdc_migrator.capture.checks.estimate import Estimate, expected
from cdc_migrator.capture.findings import Severity
from cdc_migrator.capture.leftover import WAIVABLE, accepted
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
    return [f.code for f in source.server(changed, slot_exists=False, may_replicate=True)]


def test_an_installation_without_its_library_is_told() -> None:
    assert here.native(True) == []
    (found,) = here.native(False)
    assert (found.code, found.severity) == ("CDCM-NATIVE-MISSING", Severity.WARN)


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

    assert source.server(full, slot_exists=True, may_replicate=True) == []


def test_an_older_target_and_a_weak_role_are_refused() -> None:
    """A target must be as new as the source; nothing may act on what is applied."""
    old = replace(GOOD, version_num=170004, version="17.4")
    assert [f.code for f in target.server(old, 180001)] == ["CDCM-TARGET-VERSION"]
    assert target.server(GOOD, 180001) == []

    (waits,) = target.acting("boss", False, [])
    (acts,) = target.acting("boss", False, ["the trigger t on s.u"])
    (lost,) = target.acting("boss", True, [])
    codes = ("CDCM-TARGET-REPLICA-ROLE", "CDCM-TARGET-ACTS", "CDCM-TARGET-REPLICA-ROLE")
    assert (waits.code, acts.code, lost.code) == codes
    severities = (Severity.WARN, Severity.REFUSE, Severity.REFUSE)
    assert (waits.severity, acts.severity, lost.severity) == severities


def test_a_pattern_without_a_table_names_the_nearest() -> None:
    """A partitioned table's own name matches through its partitions."""
    parent = TableName("shop", "events")
    leaf = Table(TableName("shop", "events_2024"), (), (), ReplicaIdentity.FULL, parent, 0, 0)

    assert tables.missing(["shop.events"], [], [leaf]) == []
    (found,) = tables.missing(["shop.event"], [], [leaf])
    assert found.code == "CDCM-TABLES-MISSING"
    assert "shop.events" in found.remedy
    assert [f.code for f in tables.missing(None, [], [])] == ["CDCM-TABLES-NONE"]
    (warning,) = tables.missing(None, ["x.*"], [leaf])
    assert warning.severity is Severity.WARN


@pytest.mark.parametrize(
    ("version", "objections", "codes"),
    [
        ("3.7.0.Final", {}, []),
        ("4.0.0.Final", {}, []),
        ("3.10.1.Final", {}, []),
        ("3.6.1.Final", {}, ["CDCM-CONNECT-VERSION"]),
        (None, {}, ["CDCM-CONNECT-PLUGIN"]),
        ("3.7.0.Final", {"exactly.once.support": ["off"]}, ["CDCM-CONNECT-EXACTLY-ONCE"]),
        ("3.7.0.Final", {"producer.override.linger.ms": ["no"]}, ["CDCM-CONNECT-OVERRIDES"]),
        (
            "3.7.0.Final",
            {"consumer.override.fetch.max.wait.ms": ["no"]},
            ["CDCM-CONNECT-OVERRIDES"],
        ),
    ],
)
def test_the_workers_plugin(
    version: str | None, objections: dict[str, list[str]], codes: list[str]
) -> None:
    """Debezium 3.7 or newer, in number's order, with exactly-once on."""
    assert [f.code for f in connect.plugin(version, objections, "x")] == codes


@pytest.mark.parametrize(("version", "fits"), [("3.6.2", False), ("3.7.0", True), ("4.3.0", True)])
def test_the_workers_release(version: str, fits: bool) -> None:
    """One that can make a connector without starting it."""
    assert [f.code for f in connect.worker(version)] == ([] if fits else ["CDCM-CONNECT-WORKER"])


@pytest.mark.parametrize(
    ("version", "severity", "wanted"),
    [
        (150012, Severity.REFUSE, "15.14"),
        (150013, Severity.WARN, "15.14"),
        (150014, None, ""),
        (160008, Severity.REFUSE, "16.10"),
        (160009, Severity.WARN, "16.10"),
        (160010, None, ""),
        (170004, Severity.REFUSE, "17.6"),
        (170005, Severity.WARN, "17.6"),
        (170006, None, ""),
        (180000, None, ""),
    ],
)
def test_minors_that_are_known_to_lose_changes(
    version: int, severity: Severity | None, wanted: str
) -> None:
    """Where changes are lost it is refused, where only a slot is it warns; with release notes."""
    found = source.minor(version)
    assert [f.severity for f in found] == ([severity] if severity else [])
    for one in found:
        assert one.code == "CDCM-SOURCE-MINOR"
        assert "release notes of" in one.cause
        assert f"Upgrade the source to {wanted} " in one.remedy
        (told,) = accepted(found, {one.code: "no schema changes, agreed"})
        assert told.severity is Severity.WARN


def test_an_accepted_finding_keeps_its_reason_and_an_odd_code_is_told() -> None:
    """What cannot be accepted stays as it is."""
    found = target.triggers([TableName("a", "b")], {TableName("a", "b"): ("trigger t",)}, {})
    found += target.filled([TableName("a", "b")])
    reasons = {"CDCM-TARGET-TRIGGERS": "it only counts", "CDCM-TARGET-NOT-EMPTY": "never mind"}
    told = {f.code: f for f in accepted(found, reasons)}
    assert told["CDCM-TARGET-TRIGGERS"].accepted == "it only counts"
    assert told["CDCM-TARGET-TRIGGERS"].severity is Severity.WARN
    assert told["CDCM-TARGET-NOT-EMPTY"].severity is Severity.REFUSE
    assert told["CDCM-ACCEPT-UNKNOWN"].object == "CDCM-TARGET-NOT-EMPTY"
    assert "CDCM-TARGET-NOT-EMPTY" not in WAIVABLE


def test_brokers_that_tell_nothing_are_unknown() -> None:
    """Which is said, and nothing else."""
    assert [f.code for f in kafka.brokers(None, 1, 1, True)] == ["CDCM-KAFKA-SETTINGS-HIDDEN"]


def test_an_estimate_says_nothing_of_what_is_unknown() -> None:
    """No rate, no duration; no limit of the log, no runway; free space is said to be unknown."""
    unknown = Estimate(tables=1, rows=1, bytes=1 << 30, bytes_with_indexes=2 << 30)
    assert unknown.load_seconds is None
    assert unknown.runway_seconds is None
    assert [f.code for f in expected(unknown, 3600)] == ["CDCM-TARGET-SPACE-UNKNOWN"]
    assert "2.0 GiB" in expected(unknown, 3600)[0].cause


def test_an_estimate_goes_by_the_slower_rate() -> None:
    """The one that was measured, or the one that the load is held to."""
    measured = Estimate(1, 1, 1000, 1000, read_bytes=100, read_seconds=1.0, read_table="a.b")
    assert measured.load_seconds == 10
    assert replace(measured, held_to=50).load_seconds == 20
    assert replace(measured, held_to=500).load_seconds == 10


def test_a_rate_of_less_than_a_second_is_none() -> None:
    """What a source writes in a moment says nothing."""
    brief = Estimate(1, 1, 1, 1, log_bytes=1000, log_seconds=0.5, log_limit=1000)
    assert brief.runway_seconds is None
    assert replace(brief, log_seconds=2.0).runway_seconds == 2


def test_a_role_that_may_not_make_event_triggers_is_warned() -> None:
    """Changes of the schema are then found by looking, which is said beforehand."""
    assert source.telling(event_triggers=True) == []
    [found] = source.telling(event_triggers=False)
    assert (found.code, found.severity) == ("CDCM-SOURCE-DDL", Severity.WARN)
