"""The report's page, its JSON, the plan to go back: whole, self-contained, and never guessing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from cdc_migrator.cli import report_pictures
from cdc_migrator.cli import report_words as words
from cdc_migrator.cli.evidence import sentence
from cdc_migrator.cli.output import to_json
from cdc_migrator.cli.report_page import markdown, page
from cdc_migrator.config.watch import Watch
from cdc_migrator.control.freshness import Freshness
from cdc_migrator.model.tables import TableName
from cdc_migrator.monitor.sample import ProofSample, WayBackSample
from cdc_migrator.service import rollback_plan
from cdc_migrator.service.evidence import Back, Evidence, Said
from cdc_migrator.service.judging import judge
from cdc_migrator.service.report import document
from tests.support.evidence import (
    COMPLETED,
    EVERY,
    NOW,
    ROLLED_BACK,
    SILENT,
    STREAMING,
    SWITCHED,
    UNDONE,
    at,
    table,
)

each = pytest.mark.parametrize("known", EVERY.values(), ids=EVERY)
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Tags(HTMLParser):
    """Which elements there are, with their attributes, and whether each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(known: Evidence) -> Tags:
    tags = Tags()
    tags.feed(page(document(known, judge(known))))
    tags.close()
    return tags


def planned(known: Evidence) -> str:
    return markdown("rollback.md.j2", rollback_plan.plan(known, judge(known)))


@each
def test_the_page_needs_nothing_but_itself(known: Evidence) -> None:
    """Well-formed, and no element or style that would fetch something."""
    tags = read(known)
    assert tags.open == []
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in tags.seen}
    assert not any({"src", "href", "srcset"} & attributes.keys() for _, attributes in tags.seen)
    assert not re.search(r"url\(|@import|https?:", page(document(known, judge(known))))


@each
def test_the_json_says_the_same_for_programs(known: Evidence) -> None:
    """Plain values, the status first, and what is unknown is null."""
    told = json.loads(to_json(document(known, judge(known))))
    assert told["summary"]["status"] in read(known).text
    assert {"timeline", "verdict", "tables", "attempts", "journals", "stream"} < told.keys()


def test_what_nobody_can_know_is_unknown_and_never_zero() -> None:
    """With both databases away there is a page all the same."""
    told = document(SILENT, judge(SILENT))
    for key in ("tables", "attempts", "differences", "repairs", "comparisons", "backups"):
        assert told[key] is None, key
    summary = told["summary"]
    assert summary["progress"]["fraction"] is None
    assert summary["availability"]["fraction"] is None
    assert summary["data"] is None
    assert {one for one in summary["impact"].values() if one != {}} == {None}
    assert read(SILENT).text.count("unknown") > 20


def test_the_timeline_merges_both_journals_and_counts_what_is_small() -> None:
    """By time; each entry with its side and number."""
    told = document(COMPLETED, judge(COMPLETED))["timeline"]
    assert [one["at"] for one in told] == sorted(one["at"] for one in told)
    assert {one["side"] for one in told} == {"target", "source"}
    entries = sum(len(one.entries) for one in COMPLETED.journals)
    assert sum(1 + one["minor"] for one in told) == entries
    text = read(COMPLETED).text
    assert "to go back to the source was begun" in text
    assert "the stream stood still: the target was away" in text


def test_counts_and_digests_name_the_moment_they_hold_for() -> None:
    """A digest that was not kept says so."""
    text = read(COMPLETED).text
    assert "91,020" in text
    assert "00ab54fe12cd99110000000048213377" in text
    assert "not kept" in text
    assert "2026-03-02 01:20:00" in text


def test_nothing_that_was_written_after_the_switch_counts_as_compared() -> None:
    """Nobody marks what applications write to an open target."""
    fresh = {
        "freshness": Freshness(NOW, None),
        "proofs": ProofSample(at(200), 16, 0, 0, 0, 0),
    }
    before = replace(STREAMING, sample=replace(STREAMING.sample, **fresh))
    after = replace(COMPLETED, sample=replace(COMPLETED.sample, **fresh))
    assert document(before, judge(before))["compared_up_to"] == NOW
    assert document(after, judge(after))["compared_up_to"] == SWITCHED.fenced_at
    assert document(COMPLETED, judge(COMPLETED))["compared_up_to"] is None


def test_names_are_text_on_the_page_and_in_the_plan() -> None:
    """Whatever they hold."""
    odd = TableName("shop", '<script>alert("|")</script>')
    known = replace(
        STREAMING,
        sample=replace(STREAMING.sample, tables=(table(odd, 1),)),
        tables=((odd, odd),),
        said=Said(without_way_back="<b>none</b>"),
    )
    assert "script" not in {tag for tag, _ in read(known).seen}
    assert odd.name in read(known).text
    assert '"<script>alert(""|"")</script>"' in planned(known)


def test_the_pictures_stay_within_their_lines() -> None:
    """Also of what took no time, or was never ended."""
    going = replace(UNDONE, ended_at=None, state="draining")
    for known in (*EVERY.values(), replace(STREAMING, attempts=(UNDONE, going))):
        told = document(known, judge(known))
        rows = report_pictures.life(told) + report_pictures.stalls(told["attempts"] or [])
        for bar in (bar for row in rows for bar in row.bars):
            assert bar.start >= 0
            assert bar.width > 0
            assert bar.start + bar.width <= report_pictures.WIDTH + 0.2
    assert "at most 6.0 s" in read(replace(STREAMING, attempts=(UNDONE,))).text


def test_a_plan_says_first_whether_there_is_a_way_back() -> None:
    """And why not; then no step pretends that there is one."""
    none = planned(replace(COMPLETED, back=Back(False), said=Said(without_way_back="small")))
    assert "no way back without loss**: it was given up knowingly: small" in none
    assert "cdc-migrator rollback`" not in none.partition("## When")[2]
    assert "/srv/b1" in none
    assert "unknown whether" in planned(SILENT)
    assert "none is prepared yet" in planned(STREAMING)


def test_a_plan_holds_commands_people_times_queries_and_messages() -> None:
    """What is typed and said in the night."""
    text = planned(ROLLED_BACK)
    for needed in (
        "cdc-migrator rollback --dry-run", "cdc-migrator rollback abort", "--accept-loss",
        "Ann, +49 30 1234", "#ops", "as in the rollback of 2026-03-02 06:20 UTC", "84 ms",
        'SELECT \'"shop"."orders"\' AS table, count(*) FROM "shop"."orders"', "Message 2",
        "PostgreSQL",
    ):  # fmt: skip
        assert needed in text, needed
    assert "as in the cutover of" in planned(COMPLETED)
    assert "**Nobody is named**" in planned(replace(COMPLETED, said=Said()))
    assert "\n\n\n" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "12 ms"), (4.25, "4.2 s"), (59.97, "60.0 s"), (61, "1 min 1 s"), (3600, "1 h"),
        (3661, "1 h 1 min"), (90_000, "1 day 1 h"), (None, "unknown"),
    ],
)  # fmt: skip
def test_a_duration_is_told_by_its_two_largest_units(seconds: float | None, text: str) -> None:
    """Unknown stays unknown."""
    assert words.span(seconds) == text


def test_a_share_is_never_rounded_up_to_the_whole() -> None:
    """Only what is whole is 100 %."""
    assert words.share(0.9999999, 5) == "99.99999 %"
    assert words.share(0.99999999, 5) == "99.99999 %"
    assert words.share(1.0, 5) == "100.00000 %"
    assert words.share(None) == "unknown"


@pytest.mark.parametrize(
    ("action", "details", "text"),
    [
        ("migration-created", {}, "the way back was begun"),
        ("phase", {"phase": "switched"}, "the way back waits for the target to be opened"),
        (
            "phase",
            {"phase": "stream"},
            "the way back: what is written on the target is applied to the source",
        ),
        ("phase", {"phase": "capture"}, "the way back: phase capture"),
        ("phase", {"phase": "later"}, "the way back: phase later"),
    ],
)
def test_the_sources_journal_is_told_as_that_of_the_way_back(
    action: str, details: dict[str, str], text: str
) -> None:
    """Its phases are not those of the migration: nobody has left the source by them."""
    assert words.event({"action": action, "details": details, "side": "source"}) == text


def test_the_stream_back_is_told_like_the_one_there() -> None:
    """Whether there is one, how far behind it is, and what is watched; unknown is said."""
    back = WayBackSample(prepared=True, active=True, leg=2, lag_seconds=0.4, tables=("a.b", "a.c"))
    watched = Said(watch=("lag: the source is more than 30 s behind: an alert is raised",))
    with_one = replace(COMPLETED, said=watched, sample=replace(COMPLETED.sample, way_back=back))
    text = read(with_one).text
    assert "written to the source" in text
    assert watched.watch[0] in text
    assert document(with_one, judge(with_one))["way_back"] == {
        "prepared": True,
        "active": True,
        "leg": 2,
        "tables": 2,
        "tables_missing": [],
        "lag_seconds": 0.4,
        "error": None,
    }
    silent = replace(COMPLETED, sample=replace(COMPLETED.sample, way_back=None))
    assert document(silent, judge(silent))["way_back"] is None


def test_each_rule_is_one_sentence() -> None:
    """With its number, its time and what it does, whatever its kind."""
    rules = Watch.model_validate(
        {
            "rules": [
                {"kind": "error_rate", "action": "rollback"},
                {"kind": "latency"},
                {"kind": "latency", "name": "slow", "threshold": 20},
                {"kind": "lag"},
                {"kind": "mismatch"},
                {"kind": "critical"},
                {"kind": "prometheus", "url": "http://p:9090", "query": "up", "threshold": 1},
                {"kind": "sql", "statement": "SELECT 1", "threshold": 3, "below": True},
                {"kind": "command", "argv": ["probe", "-x"], "threshold": 10},
            ]
        }
    ).rules
    told = [sentence(rule) for rule in rules]
    assert told[0] == (
        "error_rate: more than 0.01 of the target's transactions are rolled back, for 30 s: "
        "cdc-migrator goes back by itself"
    )
    assert "2 times as long" in told[1]
    assert "more than 20 ms" in told[2]
    assert "returns a number below 3" in told[7]
    assert all(line.startswith(f"{rule.called}: ") for line, rule in zip(told, rules, strict=True))
