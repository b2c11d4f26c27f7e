"""What is printed, where, and in which form."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cdc_migrator.cli.context import Format, Session, _merge, set_override
from cdc_migrator.cli.output import Printer, report_error, to_json, to_yaml
from cdc_migrator.errors import Failed

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(plain)
def test_yaml_says_what_json_says(document: object) -> None:
    """One shape in both forms, whatever the texts hold."""
    assert yaml.safe_load(to_yaml(document)) == json.loads(to_json(document)) == document


def test_times_and_paths_become_text() -> None:
    """So that a document may hold them."""
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert json.loads(to_json({"at": at, "file": Path("/x")})) == {
        "at": "2026-01-02T03:04:05+00:00",
        "file": "/x",
    }


def test_data_goes_to_stdout_and_talk_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe gets the document alone, with its version first; hints are for people."""
    out = Printer(Format.JSON)
    out.data({"a": 1}, lambda: pytest.fail("no table was asked for"))
    out.say("[talk] with [brackets]")
    out.next("cdc-migrator status")
    printed = capsys.readouterr()
    assert printed.out == '{\n  "schema_version": 1,\n  "a": 1\n}\n'
    assert printed.err == "[talk] with [brackets]\n"


def test_a_series_is_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON lines, or YAML documents with separators."""
    for form in (Format.JSON, Format.YAML):
        for number in (1, 2):
            Printer(form).line({"n": number})
    printed = capsys.readouterr().out
    assert printed == (
        '{"schema_version":1,"n":1}\n{"schema_version":1,"n":2}\n'
        "---\nschema_version: 1\nn: 1\n---\nschema_version: 1\nn: 2\n"
    )


def test_a_long_cause_is_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    """A log reader finds code and cause in one line."""
    report_error(Failed("CDCM-X-Y", "cause " * 60, "remedy"), Session())
    assert capsys.readouterr().err.splitlines()[0] == f"error CDCM-X-Y: {'cause ' * 60}"


def test_a_verbs_flags_go_over_the_shared_ones() -> None:
    """Not given is None and changes nothing."""
    below = {"load": {"workers": "2"}, "name": "a"}
    assert _merge(below, {"load": {"workers": None}, "name": None}) == below
    assert _merge(below, {"load": {"workers": 3}, "apply": {"x": None}}) == {
        "load": {"workers": 3},
        "name": "a",
    }


def test_assignments_nest() -> None:
    """The value is everything behind the first equals sign."""
    overrides: dict[str, object] = {}
    set_override(overrides, "a.b=1=2")
    set_override(overrides, "a.c=")
    set_override(overrides, "a.d=null")
    assert overrides == {"a": {"b": "1=2", "c": "", "d": None}}
