"""Each kind of rule passes on clean data, and fails by real data that is planted for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from cdc_migrator.config.rules import Rule, RulesFile
from cdc_migrator.control import validation
from cdc_migrator.errors import ConfigurationError
from cdc_migrator.service import validating
from cdc_migrator.service.direction import Direction
from cdc_migrator.service.validating import Report, ValidateOptions
from cdc_migrator.validate.results import Result, Status
from tests.integration.reconcile_rig import NAME, QuietAligner, World, world

MADE = """
CREATE SCHEMA s;
CREATE TYPE s.mood AS ENUM ('fine', 'bad');
CREATE TABLE s.parent (id int PRIMARY KEY, name text);
CREATE TABLE s.child (
    id int PRIMARY KEY, parent int REFERENCES s.parent, stated int, word text, amount numeric(10,2),
    day date, mood s.mood, code text, flag boolean, at timestamptz NOT NULL
);
CREATE TABLE s.pair (a int, b text, v text, PRIMARY KEY (a, b));
CREATE TABLE s.keyless (n int, w text);
CREATE TABLE s.parts (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE s.parts_1 PARTITION OF s.parts FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
INSERT INTO s.parent SELECT n, 'p' || n FROM generate_series(1, 50) n;
INSERT INTO s.child SELECT n, n % 50 + 1, n % 50 + 1, 'w' || n % 3, n, date '2024-01-01' + n,
    'fine', n::text, n % 2 = 0, timestamptz 'MOMENT' - interval '1 s' * n
    FROM generate_series(1, 400) n;
INSERT INTO s.pair SELECT n, 'k' || n, 'v' FROM generate_series(1, 30) n;
INSERT INTO s.keyless SELECT n, 'x' FROM generate_series(1, 20) n;
INSERT INTO s.parts SELECT n, date '2020-02-01' + n FROM generate_series(1, 40) n;
ANALYZE;
"""


# Kinds that name no row.
SILENT = {
    *("count", "count of some", "count of a partitioned table", "type as declared"),
    *("aggregate", "freshness", "freshness by age"),
}


@pytest.fixture(scope="module")
def made() -> Iterator[World]:
    with world(MADE.replace("MOMENT", datetime.now(UTC).isoformat())) as found:
        found.target.execute("SET session_replication_role = replica")
        yield found


def rules(*given: dict[str, Any]) -> Sequence[Rule]:
    return RulesFile.model_validate({"rules": given}).rules


def options(made: World, given: Sequence[Rule], **more: Any) -> ValidateOptions:
    way = Direction(NAME, made.source_dsn, made.target_dsn)
    ends = (NAME, made.source_dsn, made.target_dsn)
    return ValidateOptions(
        *ends, way, given, lambda number, field: f"rules.yaml: rules.{number}.{field}", **more
    )


def check(made: World, *given: dict[str, Any], **more: Any) -> Report:
    return validating.run(options(made, rules(*given), **more), aligner=made.aligner)


def one(made: World, given: dict[str, Any], **more: Any) -> Result:
    (found,) = check(made, given, **more).results
    return found


CHILD = {"table": "s.child"}
# The rule, what breaks it on the target, what mends that, and the reason that is told.
KINDS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "count": (
        {"kind": "count", **CHILD},
        "DELETE FROM s.child WHERE id = 400",
        "INSERT INTO s.child SELECT 400, 1, 1, 'w1', 400, date '2024-01-01' + 400, 'fine', '400', "
        "true, (SELECT min(at) FROM s.child) - interval '1 s'",
        "400 rows on the source, 399 on the target",
    ),
    "count of some": (
        {"kind": "count", **CHILD, "where": "word = 'w1' -- a comment"},
        "UPDATE s.child SET word = 'w0' WHERE id = 1",
        "UPDATE s.child SET word = 'w1' WHERE id = 1",
        "134 rows on the source, 133 on the target",
    ),
    "not_null": (
        {"kind": "not_null", **CHILD, "columns": ["word", "code"]},
        "UPDATE s.child SET word = NULL WHERE id = 3",
        "UPDATE s.child SET word = 'w0' WHERE id = 3",
        "rows break it: word: 0 on the source, 1 on the target",
    ),
    "type of values": (
        {"kind": "type", **CHILD, "columns": ["code"], "is": "integer"},
        "UPDATE s.child SET code = '4x' WHERE id = 4",
        "UPDATE s.child SET code = '4' WHERE id = 4",
        "rows break it: code: 0 on the source, 1 on the target",
    ),
    "type as declared": (
        {"kind": "type", **CHILD},
        "ALTER TABLE s.child ALTER word TYPE varchar(9)",
        "ALTER TABLE s.child ALTER word TYPE text",
        "declared otherwise: word (text, character varying(9))",
    ),
    "orphans of what is declared": (
        {"kind": "orphans", **CHILD},
        "UPDATE s.child SET parent = 77 WHERE id = 5",
        "UPDATE s.child SET parent = 6 WHERE id = 5",
        "rows break it: parent → s.parent (id): 0 on the source, 1 on the target",
    ),
    "orphans of what is stated": (
        {"kind": "orphans", **CHILD, "columns": ["stated"], "references": "s.parent"},
        "UPDATE s.child SET stated = 78 WHERE id IN (5, 6)",
        "UPDATE s.child SET stated = id % 50 + 1 WHERE id IN (5, 6)",
        "rows break it: stated → s.parent (id): 0 on the source, 2 on the target",
    ),
    "range of numbers": (
        {"kind": "range", **CHILD, "columns": ["amount"], "min": 0, "max": 400.5},
        "UPDATE s.child SET amount = 400.51 WHERE id = 7",
        "UPDATE s.child SET amount = 7 WHERE id = 7",
        "rows break it: amount: 0 on the source, 1 on the target",
    ),
    "range of whole numbers": (
        {"kind": "range", **CHILD, "columns": ["id"], "min": 0.5, "max": 1e12},
        "UPDATE s.child SET id = -7 WHERE id = 7",
        "UPDATE s.child SET id = 7 WHERE id = -7",
        "rows break it: id: 0 on the source, 1 on the target",
    ),
    "range of dates": (
        {
            "kind": "range",
            **CHILD,
            "columns": ["day", "at"],
            "min": "2024-01-01",
            "max": "2099-1-1",
        },
        "UPDATE s.child SET day = '2023-12-31' WHERE id = 8",
        "UPDATE s.child SET day = date '2024-01-01' + 8 WHERE id = 8",
        "rows break it: day: 0 on the source, 1 on the target",
    ),
    "allowed": (
        {"kind": "allowed", **CHILD, "columns": ["word"], "values": ["w0", "w1", "w2"]},
        "UPDATE s.child SET word = 'w9' WHERE id = 9",
        "UPDATE s.child SET word = 'w0' WHERE id = 9",
        "rows break it: word: 0 on the source, 1 on the target",
    ),
    "allowed labels": (
        {"kind": "allowed", **CHILD, "columns": ["mood"], "values": ["fine"]},
        "UPDATE s.child SET mood = 'bad' WHERE id = 9",
        "UPDATE s.child SET mood = 'fine' WHERE id = 9",
        "rows break it: mood: 0 on the source, 1 on the target",
    ),
    "allowed truths": (
        {"kind": "allowed", **CHILD, "columns": ["flag"], "values": [True], "where": "id % 2 = 0"},
        "UPDATE s.child SET flag = false WHERE id = 10",
        "UPDATE s.child SET flag = true WHERE id = 10",
        "rows break it: flag: 0 on the source, 1 on the target",
    ),
    "unique": (
        {"kind": "unique", **CHILD, "columns": ["code", "flag"]},
        "UPDATE s.child SET code = '2' WHERE id IN (4, 6)",
        "UPDATE s.child SET code = id::text WHERE id IN (4, 6)",
        "rows break it: code, flag: 0 on the source, 2 on the target",
    ),
    "check": (
        {"kind": "check", **CHILD, "condition": "amount = id OR id > 500"},
        "UPDATE s.child SET amount = 12 WHERE id = 11",
        "UPDATE s.child SET amount = 11 WHERE id = 11",
        "rows break it: rows: 0 on the source, 1 on the target",
    ),
    "aggregate": (
        {"kind": "aggregate", "sql": "SELECT sum(amount) AS total, min(word) FROM s.child;"},
        "UPDATE s.child SET amount = 13.01 WHERE id = 13",
        "UPDATE s.child SET amount = 13 WHERE id = 13",
        "differs in total",
    ),
    "aggregate of each side": (
        {
            "kind": "aggregate",
            "source_sql": "SELECT word, count(*) AS n FROM s.child GROUP BY 1",
            "target_sql": "SELECT word, sum(1) AS n FROM s.child GROUP BY word",
            "key": ["word"],
        },
        "UPDATE s.child SET word = 'w3' WHERE id = 12",
        "UPDATE s.child SET word = 'w0' WHERE id = 12",
        "2 of 4 rows of the result differ",
    ),
    "freshness": (
        {"kind": "freshness", **CHILD, "column": "at"},
        "UPDATE s.child SET at = at - interval '1 h' WHERE id = 1",
        "UPDATE s.child SET at = at + interval '1 h' WHERE id = 1",
        "the target's is older by 1.0 s",
    ),
    "freshness by age": (
        {"kind": "freshness", **CHILD, "column": "at", "max_age": "1h", "max_behind": "9d"},
        "UPDATE s.child SET at = at - interval '2 h'",
        "UPDATE s.child SET at = at + interval '2 h'",
        "newer than 1h was asked for",
    ),
    "spot": (
        {"kind": "spot", **CHILD, "random": 1000},
        "UPDATE s.child SET word = 'w5', amount = 1.1 WHERE id = 14",
        "UPDATE s.child SET word = 'w2', amount = 14 WHERE id = 14",
        "1 different in amount, word",
    ),
    "spot on a missing row": (
        {"kind": "spot", **CHILD, "random": 0, "edges": False, "keys": [15, 16]},
        "UPDATE s.child SET id = 1015 WHERE id = 15",
        "UPDATE s.child SET id = 15 WHERE id = 1015",
        "of 2 rows 1 missing on the target",
    ),
    "spot on edges": (
        {"kind": "spot", **CHILD, "random": 0},
        "INSERT INTO s.child SELECT 999, 1, 1, 'w1', 0, '2024-06-01', 'fine', '999', true, at "
        "FROM s.child WHERE id = 7",
        "DELETE FROM s.child WHERE id = 999",
        "1 missing on the source",
    ),
    "spot on what is recent": (
        {"kind": "spot", **CHILD, "random": 0, "edges": False, "recent": "24h", "by": "at"},
        "UPDATE s.child SET code = 'zz' WHERE id = 17",
        "UPDATE s.child SET code = '17' WHERE id = 17",
        "of 400 rows 1 different in code",
    ),
    "spot by a key of two columns": (
        {"kind": "spot", "table": "s.pair", "random": 0, "edges": False, "keys": [[3, "k3"]]},
        "UPDATE s.pair SET v = 'other' WHERE a = 3",
        "UPDATE s.pair SET v = 'v' WHERE a = 3",
        "of 1 rows 1 different in v",
    ),
    "count of a partitioned table": (
        {"kind": "count", "table": "s.parts"},
        "DELETE FROM s.parts WHERE id = 40",
        "INSERT INTO s.parts VALUES (40, date '2020-02-01' + 40)",
        "40 rows on the source, 39 on the target",
    ),
    "check of a table without a key": (
        {"kind": "check", "table": "s.keyless", "condition": "n > 0"},
        "INSERT INTO s.keyless VALUES (-1, 'x')",
        "DELETE FROM s.keyless WHERE n < 0",
        "rows break it: rows: 0 on the source, 1 on the target",
    ),
}


ALL = [{**rule, "name": kind} for kind, (rule, *_) in KINDS.items()]


def test_every_kind_passes_on_clean_data(made: World) -> None:
    """At one point, by two workers; nothing of a row is told."""
    report = check(made, *ALL, values=True)
    assert [one.judged for one in report.results if not one.passed] == []
    assert (report.passed, report.aligned, report.whole) == (True, True, True)
    assert not any(part.examples for one in report.results for part in one.judged.parts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rule_fails_by_what_is_planted(made: World, kind: str) -> None:
    """It tells numbers, names rows where somebody asks for it, and how a person looks closer."""
    rule, breaks, mends, reason = KINDS[kind]
    made.target.execute(breaks.encode())
    try:
        found = one(made, rule, values=True)
    finally:
        made.target.execute(mends.encode())
    assert found.status is Status.FAILED, found
    assert reason in found.judged.reason
    bad = [part for part in found.judged.parts if not part.passed]
    assert bad
    assert kind in SILENT or any(part.examples for part in bad), found
    for part in bad:
        if part.look and "$1" not in part.look and "-- on" not in part.look:
            made.source.execute(part.look.encode())


def test_what_was_planted_is_mended_and_nothing_is_named_unasked(made: World) -> None:
    """Every kind passes again; a row that breaks one is counted, and not named."""
    assert check(made, *ALL).passed
    found = one(made, {"kind": "range", **CHILD, "columns": ["amount"], "max": 399})
    assert [(part.source, part.target) for part in found.judged.parts] == [("1", "1")]
    assert not any(part.examples for part in found.judged.parts)


def test_rows_that_are_named_have_their_key_and_what_is_wrong(made: World) -> None:
    """Of both sides, as many as were asked for; where there is no key, the row's place."""
    rule = {"kind": "range", **CHILD, "columns": ["amount"], "max": 390, "max_examples": 2}
    (part,) = one(made, rule, values=True).judged.parts
    assert (part.source, part.target) == ("10", "10")
    assert [dict(example.key) for example in part.examples] == [{"id": "391"}, {"id": "392"}] * 2
    assert dict(part.examples[0].source) == {"amount": "391.00"}
    keyless = {"kind": "check", "table": "s.keyless", "condition": "n <> 2"}
    (part,) = one(made, keyless, values=True).judged.parts
    assert {tuple(example.key) for example in part.examples} == {("ctid",)}
    made.target.execute("UPDATE s.child SET word = 'w7' WHERE id = 20")
    try:
        spot = one(made, {"kind": "spot", **CHILD, "keys": [20]}, values=True)
    finally:
        made.target.execute("UPDATE s.child SET word = 'w2' WHERE id = 20")
    (example,) = spot.judged.parts[-1].examples
    assert (example.columns, dict(example.source), dict(example.target)) == (
        ("word",),
        {"word": "w2"},
        {"word": "w7"},
    )


TOLERATED = (
    {"kind": "range", "columns": ["amount"], "max": 390, "tolerance": 10},
    {"kind": "range", "columns": ["amount"], "max": 390, "tolerance": "2.6%"},
    {"kind": "count", "tolerance": 1},
    {"kind": "count", "tolerance": "0.25%"},
    {"kind": "spot", "random": 0, "keys": [1], "tolerance": "50%"},
    {"kind": "orphans", "tolerance": "1%"},
    {"kind": "check", "condition": "id <> 2", "sides": "source", "tolerance": 1},
    {"kind": "freshness", "column": "at", "max_behind": "1h"},
)
BEYOND = (
    {"kind": "range", "columns": ["amount"], "max": 390, "tolerance": 9},
    {"kind": "range", "columns": ["amount"], "max": 390, "tolerance": "2.4%"},
    {"kind": "count", "tolerance": "0.24%"},
    {"kind": "check", "condition": "id <> 2", "sides": "target"},
    {"kind": "freshness", "column": "at", "max_age": 0.001, "max_behind": "1h"},
)


def test_tolerances_are_numbers_or_shares(made: World) -> None:
    """Up to them, and not beyond."""
    row = made.target.execute("DELETE FROM s.child WHERE id = 1 RETURNING *").fetchone()
    assert row is not None
    given = [{**rule, **CHILD, "name": str(n)} for n, rule in enumerate(TOLERATED + BEYOND)]
    try:
        results = check(made, *given).results
    finally:
        made.target.execute(
            "INSERT INTO s.child VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)", row
        )
    passed = [one.told for one in results if one.passed]
    assert passed == [one.told for one in results[: len(TOLERATED)]]


@pytest.mark.parametrize(
    ("rule", "code", "told"),
    [
        ({"kind": "check", **CHILD, "condition": "nothing > 1"}, "CDCM-DB-ERROR", "42703"),
        ({"kind": "check", **CHILD, "condition": "1 / (id - 3) > 7"}, "CDCM-DB-ERROR", "22012"),
        ({"kind": "aggregate", "sql": "DELETE FROM s.child"}, "CDCM-DB-ERROR", "42601"),
        ({"kind": "aggregate", "sql": "SELECT 1; COMMIT"}, "CDCM-DB-ERROR", "42601"),
        (
            {"kind": "aggregate", "sql": "SELECT pg_sleep(9)", "timeout": "100ms"},
            "CDCM-VALIDATE-TIMEOUT",
            "time limit",
        ),
        ({"kind": "aggregate", "sql": "SELECT id FROM s.child"}, None, "it returns several rows"),
        (
            {"kind": "aggregate", "sql": "SELECT word, id FROM s.child", "key": ["word"]},
            None,
            "have the same key",
        ),
    ],
)
def test_what_cannot_be_asked_is_an_error_and_the_others_go_on(
    made: World, rule: dict[str, Any], code: str | None, told: str
) -> None:
    """With its code, no value, and nothing changed."""
    report = check(made, rule, {"kind": "count", **CHILD})
    broken, counted = report.results
    assert (broken.status, counted.status) == (Status.ERROR, Status.PASSED)
    assert broken.code == code
    assert told in broken.judged.reason
    assert not report.passed
    assert made.target.execute("SELECT count(*) FROM s.child").fetchone() == (400,)


def test_what_a_rule_names_must_be_there(made: World) -> None:
    """Every fault at once, with its place and what was meant."""
    with pytest.raises(ConfigurationError) as caught:
        check(
            made,
            {"kind": "count", "table": "s.chld"},
            {"kind": "not_null", **CHILD, "columns": ["wird"]},
            {"kind": "spot", "table": "s.keyless"},
            {"kind": "spot", "table": "s.pair", "keys": [1]},
            {"kind": "freshness", **CHILD, "column": "word"},
            {"kind": "orphans", "table": "s.parent"},
            {"kind": "orphans", **CHILD, "columns": ["stated"], "references": "s.pair"},
        )
    assert caught.value.code == "CDCM-VALIDATE-UNKNOWN"
    assert caught.value.cause.splitlines() == [
        "8 faults",
        "  rules.yaml: rules.0.table: s.chld is no table of the migration; did you mean s.child?",
        "  rules.yaml: rules.1.columns: wird is no column of s.child on the source; did you mean "
        "word?",
        "  rules.yaml: rules.1.columns: wird is no column of s.child on the target; did you mean "
        "word?",
        "  rules.yaml: rules.2.table: has no primary key by which rows could be found on both "
        "sides",
        "  rules.yaml: rules.3.keys: a key of s.pair is (a, b)",
        "  rules.yaml: rules.4.column: word is no column of dates or times",
        "  rules.yaml: rules.5.table: no foreign key is declared: state columns and references",
        "  rules.yaml: rules.6.columns: s.pair is referred to by (a, b)",
    ]
    with pytest.raises(ConfigurationError) as caught:
        check(made, {"kind": "count", **CHILD}, only=("nothing",))
    assert caught.value.code == "CDCM-VALIDATE-NONE"


def test_what_came_of_it_is_kept_for_the_verdict(made: World) -> None:
    """Of the last run in which no rule was left out; without a value of a row."""
    given = (
        {"kind": "count", **CHILD},
        {"kind": "range", **CHILD, "columns": ["amount"], "max": 390, "severity": "warning"},
    )
    report = check(made, *given, values=True)
    assert report.passed
    kept = validation.latest(made.target)
    assert kept is not None
    assert (kept["id"], kept["passed"], kept["aligned"]) == (report.run, True, True)
    assert (kept["counted"], kept["not_passed"]) == (
        {"blocker": 1, "warning": 1},
        {"blocker": 0, "warning": 1},
    )
    assert [one["name"] for one in kept["against"]] == ["range s.child amount"]
    assert "391" not in str(kept)
    check(made, *given, only=("count*",))
    assert not check(made, {"kind": "count", "table": "s.pair"}, in_force="others").whole
    again = validation.latest(made.target)
    assert again is not None
    assert again["id"] == report.run


def test_a_table_that_is_not_loaded_yet_is_not_looked_at(made: World) -> None:
    """And so a blocker about it stands against the whole."""
    loading = "UPDATE cdc_migrator.table_progress SET load_state = %s WHERE source_table = 'child'"
    made.target.execute(loading.encode(), ("loading",))
    try:
        report = check(made, {"kind": "count", **CHILD}, {"kind": "count", "table": "s.pair"})
    finally:
        made.target.execute(loading.encode(), ("loaded",))
    assert [one.status for one in report.results] == [Status.SKIPPED, Status.PASSED]
    assert not report.passed
    assert report.at.utcoffset() == timedelta(0)


def test_a_table_that_was_truncated_since_the_point_is_judged_at_another_one(made: World) -> None:
    """It looks empty under a snapshot of before."""
    made.both("CREATE TABLE s.brief (id int PRIMARY KEY)", "INSERT INTO s.brief VALUES (1), (2)")
    made.register()
    given = rules({"kind": "count", "table": "s.brief"})

    class Late:
        """The application truncates the source's table and fills it, behind the first point."""

        points = 0

        def align(self, *_: Any) -> Any:
            self.points += 1
            point = made.aligner.align()
            if self.points == 1:
                made.both("TRUNCATE s.brief; INSERT INTO s.brief VALUES (3)")
                made.source.execute("TRUNCATE s.brief; INSERT INTO s.brief VALUES (3)")
            return point

        def release(self) -> None:
            made.aligner.release()

    made.target.execute("TRUNCATE s.brief; INSERT INTO s.brief VALUES (1), (2)")
    late = Late()
    (found,) = validating.run(options(made, given), aligner=late).results
    assert found.passed


def test_a_point_that_is_lost_is_followed_by_another(made: World) -> None:
    """Its snapshots live as long as the session that gave them."""

    class Brief:
        points = 0

        def align(self, *_: Any) -> Any:
            self.points += 1
            point = made.aligner.align()
            if self.points == 1:
                made.aligner.release()
            return point

        def release(self) -> None:
            made.aligner.release()

    brief = Brief()
    report = validating.run(options(made, rules({"kind": "count", **CHILD})), aligner=brief)
    assert (report.passed, report.aligned, brief.points) == (True, True, 2)


def test_on_the_way_back_the_points_are_those_of_the_other_stream(made: World) -> None:
    """Source and target stay what they are called; the snapshots change over."""

    class Back(QuietAligner):
        def turn(self, target: psycopg.Connection) -> None:
            """Nobody applies to our source here."""

    back = Back(made.target_dsn, made.source_dsn)
    given = options(made, rules({"kind": "count", **CHILD}))
    way = Direction(f"{NAME}_back", made.target_dsn, made.source_dsn, back=True)
    made.source.execute("INSERT INTO s.child (id, at) VALUES (5000, now())")
    try:
        (found,) = validating.run(replace(given, way=way), aligner=back).results
    finally:
        made.source.execute("DELETE FROM s.child WHERE id = 5000")
        back.release()
    (part,) = found.judged.parts
    assert (part.source, part.target) == ("401", "400")
