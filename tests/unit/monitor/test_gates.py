"""Each gate over a sample: passed, failed, or unknown where nobody could look."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cdc_migrator.control.dead_letters import Standing
from cdc_migrator.control.freshness import Freshness
from cdc_migrator.control.inspection import PARTS, Part
from cdc_migrator.control.migration import Phase
from cdc_migrator.model.gates import Gate, Verdict, ready, reasons
from cdc_migrator.monitor.gates import GATES, gates
from cdc_migrator.monitor.limits import Limits
from cdc_migrator.monitor.sample import (
    CatchUp,
    ConnectorSample,
    FenceSample,
    Note,
    ProofSample,
    RetentionSample,
    Sample,
    SlotSample,
    StreamSample,
    WayBackSample,
)
from cdc_migrator.monitor.schema_sample import Ahead, SchemaSample, WaitedFor
from tests.support.samples import NOW, TABLES, inspected, streaming

LIMITS = Limits(without_way_back="a test", hooks="d1", rules="r1")
PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN
HOUR = timedelta(hours=1)
STREAM = StreamSample("t", 1, 1, NOW, NOW, 30, 0, 3)
LIMITED = SlotSample("cdcm_shop_1", True, True, "reserved", 5, 1 << 30)
WAITING = (replace(TABLES[0], joining="publishing"),)
IGNORED = (replace(TABLES[0], truncates_ignored=1),)


def gate(name: str, sample: Sample, limits: Limits = LIMITS) -> Gate:
    (found,) = (one for one in gates(sample, limits) if one.name == name)
    return found


def obstacle(kind: str, **more: Any) -> dict[str, Any]:
    found = {"kind": kind, "tables": ["s.a"], "name": "x", "pid": 7, "seconds": 90.0}
    return {"obstacles": [{**found, "remedy": "do it", **more}]}


def opened(seconds: float, **more: Any) -> dict[str, Any]:
    found = {"pid": 7, "name": "app", "seconds": seconds, "prepared": False, **more}
    return {"transactions": [found]}


def checked(**more: Any) -> dict[str, Any]:
    return {"run": {**inspected()["validation"].found["run"], **more}}


YESTERDAY = (NOW - 30 * HOUR).isoformat()
TOO_LARGE = ConnectorSample(
    "c",
    True,
    "RUNNING",
    ("FAILED",),
    "The message is 99 bytes when serialized which is larger than 9",
)
BLOCKER = {"name": "count s.a", "severity": "blocker", "status": "failed", "reason": "1 row"}
ADDED = WaitedFor("s.a", "offset 3", ("column added: n",), ("ALTER TABLE s.a ADD COLUMN n int",))
TOLD = Ahead("s.a", "ALTER TABLE", "t1")
SIDE = {"code": "CDCM-SCHEMA-SIDE", "cause": "it must be made anew", "remedy": "do so"}
BACKUP = {"kind": "dump", "place": "/b", "taken_at": (NOW - 30 * HOUR).isoformat()}
WARNED = {
    "errors": 0,
    "warnings": 4,
    "differences": [
        {"kind": "index", "object": f"i{n}", "attribute": "presence", "severity": "warn"}
        for n in range(4)
    ],
}


def test_a_stream_in_good_order_is_ready() -> None:
    """Every gate says why it is passed, and has nothing to remedy."""
    found = gates(streaming(), LIMITS)
    assert ready(found)
    assert reasons(found) == []
    assert len({one.name for one in found}) == len(GATES)
    assert all(one.reason and one.remedy is None for one in found)


@pytest.mark.parametrize(
    ("name", "changes", "verdict", "reason"),
    [
        ("measurement", {"notes": (Note("kafka", "C", "away"),)}, UNKNOWN, "kafka could not be"),
        ("load", {"phase": Phase.INDEXES}, FAIL, "the phase is indexes"),
        ("load", {"tables": WAITING}, FAIL, "being added, and not done yet: shop.orders"),
        ("load", {"tables": None}, UNKNOWN, "not looked at"),
        ("tables", {"not_added": ("s.b",)}, FAIL, "s.b"),
        ("tables", {"not_added": None}, UNKNOWN, "nobody looked"),
        ("service", {"owner": None}, FAIL, "does not run"),
        ("service", {"phase": None}, UNKNOWN, "phase is unknown"),
        ("error", {"last_error": {"code": "C", "remedy": "mend"}}, FAIL, "stands: C"),
        ("error", {"phase": None}, UNKNOWN, "phase is unknown"),
        ("schema-changes", {"schema": None}, UNKNOWN, "nobody looked"),
        ("schema-changes", {"schema": SchemaSample((), None)}, UNKNOWN, "does not say"),
        ("schema-changes", {"schema": SchemaSample((ADDED,))}, FAIL, "s.a (column added: n)"),
        ("schema-changes", {"schema": SchemaSample((), (TOLD,))}, FAIL, "has changed s.a, and"),
        ("schema-changes", {"last_error": SIDE}, FAIL, "must be made anew"),
        ("schema-changes", {"last_error": {"code": "CDCM-APPLY-TRUNCATE"}}, PASS, "at no change"),
        ("lag", {"lag_seconds": 11.0}, FAIL, "is above 10 s"),
        ("lag", {"lag_seconds": 6.0, "catch_up": CatchUp(None, 1, 2)}, FAIL, "no less arrives"),
        ("lag", {"lag_seconds": 6.0, "catch_up": CatchUp(3.0, 2, 1)}, PASS, "6.00 s"),
        ("lag", {"lag_seconds": 6.0, "catch_up": None}, UNKNOWN, "whether it rises"),
        ("lag", {"lag_seconds": None}, UNKNOWN, "the lag is unknown"),
        ("slot", {"slot": SlotSample("x", False)}, FAIL, "is gone"),
        ("slot", {"slot": None}, UNKNOWN, "not looked at"),
        ("connector", {"connector": None}, UNKNOWN, "not looked at"),
        ("connector", {"connector": TOO_LARGE}, FAIL, "a change of 99 bytes is larger than"),
        ("runway", {"slot": LIMITED, "slot_seconds_left": 60.0}, FAIL, "reached in 60 s"),
        ("runway", {"slot": LIMITED, "slot_seconds_left": 9e9}, PASS, "as long as"),
        ("runway", {"slot": LIMITED}, UNKNOWN, "comes nearer is not known"),
        ("runway", {"retention": RetentionSample(None, 9, False, 0)}, FAIL, "by its size"),
        (
            "runway",
            {"retention": RetentionSample(3600.0, None, False, 0), "retention_seconds_left": 60.0},
            FAIL,
            "for 60 s only",
        ),
        ("runway", {"retention": None}, UNKNOWN, "is not known"),
        ("applied", {"stream": STREAM}, FAIL, "3 transactions were applied"),
        ("applied", {"stream": STREAM, "freshness": Freshness(NOW, NOW)}, PASS, "was applied"),
        ("applied", {"stream": STREAM, "freshness": Freshness(NOW, NOW + HOUR)}, FAIL, "proven"),
        ("applied", {"tables": IGNORED}, FAIL, "truncated shop.orders"),
        ("applied", {"stream": None}, UNKNOWN, "not looked at"),
        ("applied", {"parked": None}, UNKNOWN, "not looked at"),
        ("applied", {"parked": Standing(2, 7, 1, 0, NOW)}, FAIL, "7 records of 2 keys are kept"),
        ("applied", {"parked": Standing(0, 0, 1, 4, NOW)}, FAIL, "of 1 keys were given up"),
        ("equal", {"proofs": ProofSample(NOW, 9, 0, 0, 3, 1)}, FAIL, "3 rows differ"),
        ("equal", {"proofs": None}, UNKNOWN, "not known"),
        ("verified", {"proofs": ProofSample(None, 9, 9, 2, 0, 0)}, FAIL, "2 tables was never"),
        ("verified", {"freshness": Freshness(None, None)}, FAIL, "lately was not compared"),
        ("verified", {"freshness": Freshness(NOW - HOUR, None)}, FAIL, "in the last 60 min"),
        (
            "verified",
            {"proofs": ProofSample(NOW - 200 * HOUR, 9, 0, 0, 0, 0)},
            FAIL,
            "is of 8.3 days ago",
        ),
        ("verified", {"proofs": ProofSample(NOW - 9 * HOUR, 9, 0, 0, 0, 0)}, PASS, "0 s ago"),
        ("verified", {"proofs": None}, UNKNOWN, "not known"),
        ("target-fence", {"fence": FenceSample("partial", ("a",), ())}, FAIL, "not fenced on"),
        ("target-fence", {"fence": FenceSample("partial", ("a",), ("a",))}, FAIL, "any more"),
        ("target-fence", {"fence": None}, UNKNOWN, "nobody looked"),
    ],
)
def test_what_a_sample_holds(
    name: str, changes: dict[str, Any], verdict: Verdict, reason: str
) -> None:
    """Each fact decides its own gate."""
    found = gate(name, streaming(**changes))
    assert (found.verdict, reason in found.reason) == (verdict, True), found
    assert found.remedy or verdict is not FAIL


@pytest.mark.parametrize(
    ("name", "part", "found", "reason"),
    [
        ("target", "target", {"in_recovery": True}, "is a standby"),
        ("target", "target", {"read_only": True}, "default_transaction_read_only"),
        ("target", "target", {"not_owned": ["s.a"]}, "does not own s.a"),
        ("schema", "schema", {"errors": 1, "differences": WARNED["differences"][:1]}, "i0"),
        ("constraints", "constraints", WARNED, "i0 (presence)"),
        (
            "sequences",
            "sequences",
            {"failed": [{"sequence": "s.q", "remedy": "mend"}]},
            "cannot be set: s.q",
        ),
        ("transactions", "source", obstacle("prepared transaction"), "'x'"),
        ("transactions", "source", obstacle("writer"), "for 90 s"),
        ("transactions", "source", opened(31.0), "a transaction of app has been open"),
        ("transactions", "source", opened(31.0, pid=None), "a transaction of app"),
        ("maintenance", "source", obstacle("maintenance"), "maintenance of x on s.a"),
        ("maintenance", "source", obstacle("anti-wraparound vacuum", name=""), "vacuum on s.a"),
        ("source-fence", "source", obstacle("subscription"), "subscriptions of the source"),
        ("source-fence", "source", {"not_owned": ["s.a"]}, "may not fence s.a"),
        ("backup", "preparations", {"backup": None}, "no backup"),
        ("backup", "preparations", {"backup": BACKUP}, "30.0 h old, above 24.0 h"),
        ("hooks", "preparations", {"rehearsal": None}, "never rehearsed"),
        (
            "hooks",
            "preparations",
            {"rehearsal": {"attempt": 1, "ended_at": NOW.isoformat(), "hooks": "d0"}},
            "changed since",
        ),
        ("validation", "validation", {"run": None}, "never checked"),
        ("validation", "validation", checked(rules="r0"), "were changed since"),
        ("validation", "validation", checked(ended_at=YESTERDAY), "30.0 h ago, above 24.0 h"),
        (
            "validation",
            "validation",
            checked(passed=False, not_passed={"blocker": 2}, against=[BLOCKER]),
            "2 rules are not kept: count s.a",
        ),
    ],
)
def test_what_an_inspection_has_found(
    name: str, part: str, found: dict[str, Any], reason: str
) -> None:
    """Each fails for its reason with its remedy; stale or broken it is unknown."""
    sample = streaming(inspection=inspected(**{part: found}))
    failed = gate(name, sample)
    assert (failed.verdict, reason in failed.reason) == (FAIL, True), failed
    assert failed.remedy
    assert [one.name for one in gates(sample, LIMITS) if not one.passed] == [name]
    assert gate(name, streaming()).passed
    for nothing in (None, {}, {part: Part(found, NOW - HOUR)}, {part: Part({}, NOW)}):
        assert gate(name, streaming(inspection=nothing)).verdict is UNKNOWN
    broken = {"error": {"code": "C", "cause": "it broke", "remedy": "mend"}}
    unknown = gate(name, streaming(inspection={part: Part(broken, NOW)}))
    assert (unknown.verdict, unknown.remedy) == (UNKNOWN, "mend")
    assert "it broke" in unknown.reason


def test_the_remedy_of_a_change_is_its_statement() -> None:
    """What the stream says of itself goes first: it leaves out what the target has by now."""
    sample = streaming(schema=SchemaSample((ADDED,), ()))
    found = gate("schema-changes", sample)
    assert (found.remedy or "").startswith(f"Run on the target: {ADDED.statements[0]}. ")
    assert found.evidence["waiting"][0]["statements"] == list(ADDED.statements)
    said: dict[str, Any] = {
        "code": "CDCM-SCHEMA-CHANGED",
        "cause": "c",
        "remedy": "Run on the target: X.",
    }
    assert gate("schema-changes", replace(sample, last_error=said)).remedy == said["remedy"]
    other = {"code": "CDCM-APPLY-TRUNCATE", "remedy": "another"}
    assert gate("schema-changes", replace(sample, last_error=other)).remedy == found.remedy


def test_what_nobody_sees_is_not_taken_for_nothing() -> None:
    """A role without the right to see others' transactions does not know of them."""
    sample = streaming(inspection=inspected(source={"sees_all": False}))
    found = gate("transactions", sample)
    assert (found.verdict, "pg_read_all_stats" in (found.remedy or "")) == (UNKNOWN, True)


def test_what_is_given_up_knowingly_passes() -> None:
    """With the reason that was given; errors of the schema cannot be given up."""
    for part in ("schema", "constraints"):
        warned = streaming(inspection=inspected(**{part: WARNED}))
        found = gate(part, warned, replace(LIMITS, schema_differs="it is meant"))
        assert found.passed
        assert "it is meant" in found.reason
        wrong = streaming(inspection=inspected(**{part: {**WARNED, "errors": 1}}))
        assert not gate(part, wrong, replace(LIMITS, schema_differs="it is meant")).passed
    none = streaming(inspection=inspected(preparations={"backup": None, "rehearsal": None}))
    assert gate("backup", none, replace(LIMITS, max_backup_age=None)).passed
    assert gate("hooks", none, replace(LIMITS, hooks=None)).passed
    assert not gate("way-back", none, replace(LIMITS, without_way_back=None)).passed
    stale = streaming(inspection=inspected(validation={"run": None}))
    assert gate("validation", stale, replace(LIMITS, stale_rules_pass=True)).passed
    assert gate("validation", stale, replace(LIMITS, rules=None)).passed
    wrong = streaming(inspection=inspected(validation=checked(passed=False, against=[BLOCKER])))
    assert not gate("validation", wrong, replace(LIMITS, stale_rules_pass=True)).passed
    off = streaming(fence=FenceSample("off", ("a",), ()))
    assert gate("target-fence", off, replace(LIMITS, fence=False)).passed


def test_before_it_streams_one_reason_is_enough() -> None:
    """Everything else is unknown for that very reason."""
    early = Sample(NOW, "shop", phase=Phase.LOAD)
    found = gates(early, LIMITS)
    assert not ready(found)
    assert reasons(found) == ["the phase is load, not stream"]
    nothing = gates(Sample(NOW, "shop"), Limits())
    assert reasons(nothing)[0] == "the migration's phase is unknown"
    assert not any(one.passed for one in nothing if one.name != "measurement")


def test_every_part_of_an_inspection_has_its_gate() -> None:
    """None is looked at for nothing."""
    without = [{p: part for p, part in inspected().items() if p != name} for name in PARTS]
    for parts in without:
        assert not ready(gates(streaming(inspection=parts), LIMITS))


def test_the_way_back_must_be_whole_alive_and_near() -> None:
    """Prepared, of every table, applied by somebody, close behind; else it says what to do."""
    limits = replace(LIMITS, without_way_back=None)
    ready = WayBackSample(prepared=True, lag_seconds=0.4, tables=("shop.orders",))

    def judged(back: WayBackSample | None) -> Gate:
        return gate("way-back", streaming(way_back=back), limits)

    assert judged(ready).passed
    assert judged(None).verdict is UNKNOWN
    for back, why in (
        (WayBackSample(prepared=False), "no way back"),
        (WayBackSample(prepared=False, within=True), "one database"),
        (replace(ready, missing=("shop.items",)), "shop.items"),
        (replace(ready, error="CDCM-APPLY-REJECTED"), "CDCM-APPLY-REJECTED"),
        (replace(ready, lag_seconds=None), "nobody applies"),
        (replace(ready, lag_seconds=99.0), "behind by 99 s"),
    ):
        told = judged(back)
        assert told.verdict is FAIL
        assert why in told.reason
        assert told.remedy
    knowingly = judged(replace(ready, without=(("shop.log", "crm.log"),)))
    assert knowingly.passed
    assert "knowingly without crm.log" in knowingly.reason
