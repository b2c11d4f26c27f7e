"""The command as it is typed: what it prints and writes, how it ends, what it never shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.dom import minidom

import pytest
import yaml

from cdc_migrator.cli.main import main
from cdc_migrator.config.rules import RulesFile
from tests.integration.reconcile_rig import NAME, World, world

Typed = Callable[..., tuple[int, Any, str]]
SECRET = "nobody-shall-see-this"
MADE = f"""
CREATE SCHEMA shop;
CREATE TABLE shop.orders (
    id int PRIMARY KEY, state text NOT NULL, total numeric(10,2) NOT NULL CHECK (total >= 0),
    note text, at timestamptz NOT NULL
);
CREATE TABLE shop.lines (orders int REFERENCES shop.orders, n int, PRIMARY KEY (orders, n));
INSERT INTO shop.orders SELECT n, CASE WHEN n % 3 = 0 THEN 'paid' ELSE 'new' END, n, '{SECRET}',
    timestamptz 'MOMENT' - interval '1 s' * n FROM generate_series(1, 200) n;
INSERT INTO shop.lines SELECT n, 1 FROM generate_series(1, 200) n;
ANALYZE;
"""
RULES = """\
validate:
  file: rules.yaml
  rules:
    - kind: range
      table: shop.orders
      columns: [total]
      max: 150
      severity: warning
    - {kind: allowed, table: shop.orders, columns: [note], values: [none], name: "<notes> & more"}
"""


@pytest.fixture(scope="module")
def made() -> Iterator[World]:
    with world(MADE.replace("MOMENT", datetime.now(UTC).isoformat())) as found:
        yield found


@pytest.fixture
def typed(
    made: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Typed:
    """Type a command line: its exit code, its JSON document, and what it said on stderr."""
    ends = {"source": {"dsn": made.source_dsn}, "target": {"dsn": made.target_dsn}}
    (tmp_path / "migration.yaml").write_text(yaml.safe_dump({"name": NAME, **ends}))
    monkeypatch.chdir(tmp_path)

    def type_(*words: str) -> tuple[int, Any, str]:
        with pytest.raises(SystemExit) as ended:
            main(["validate", *words])
        said = capsys.readouterr()
        document = json.loads(said.out) if said.out.startswith("{") else said.out
        return int(ended.value.code or 0), document, said.err

    return type_


def test_what_init_proposes_is_kept(typed: Typed, tmp_path: Path) -> None:
    """From catalog and rows; it is written once, and never over a file that is there."""
    code, proposed, _ = typed("init")
    assert code == 0
    written = yaml.safe_load(proposed)["rules"]
    rules = RulesFile.model_validate({"rules": written}).rules
    told = "count type not_null unique check allowed range freshness spot"
    wanted = {("orphans", "shop.lines"), *((kind, "shop.orders") for kind in told.split())}
    assert wanted <= {(one.kind, one.table) for one in rules}
    (states,) = (one for one in written if one.get("values") == ["new", "paid"])
    assert (states["columns"], states["severity"]) == (["state"], "warning")
    assert typed("init", "--output", "rules.yaml")[0] == 0
    assert (tmp_path / "rules.yaml").read_text() == proposed
    code, _, said = typed("init", "--output", "rules.yaml")
    assert (code, "CDCM-VALIDATE-FILE" in said) == (3, True)
    code, document, said = typed("--rules", "rules.yaml", "-o", "json")
    assert [one for one in document["rules"] if one["status"] != "passed"] == []
    assert (code, document["passed"], document["aligned"]) == (0, True, False)
    assert "each side was read as it is" in said
    assert typed("init", "--tables", "nothing.*")[0] == 2
    code, _, said = typed("--rules", "rules.yaml", "--aligned")
    assert (code, "CDCM-ALIGN-NO-RUN" in said) == (3, True)


def test_init_leaves_out_what_changes_its_columns(typed: Typed, tmp_path: Path) -> None:
    """Its rules go by the target's columns; one that only goes elsewhere is as it was."""
    mapping = [
        {"table": "shop.orders", "rename": {"total": "sum"}},
        {"table": "shop.*", "to": "crm.*"},
    ]
    file = tmp_path / "migration.yaml"
    file.write_text(file.read_text() + yaml.safe_dump({"mapping": mapping}))
    code, proposed, said = typed("init")
    assert code == 0
    assert {one["table"] for one in yaml.safe_load(proposed)["rules"]} == {"shop.lines"}
    assert "left out, for their columns change on the way: shop.orders" in said


def test_a_blocker_that_is_not_kept_ends_with_1_and_a_warning_with_0(
    typed: Typed, tmp_path: Path
) -> None:
    """In every form, and without a value of a row unless it is asked for."""
    config = tmp_path / "migration.yaml"
    config.write_text(config.read_text() + RULES)
    (tmp_path / "rules.yaml").write_text("rules:\n- {kind: count, table: shop.lines}\n")
    assert typed("--only", "range*")[0] == 0
    code, document, _ = typed("--json", "--html", "page.html", "--junit", "out.xml")
    assert code == 1
    assert document["schema_version"] == 1
    assert document["counts"] == {"failed": 2, "error": 0, "skipped": 0, "passed": 1}
    (count, bounded, noted) = document["rules"]
    assert (count["name"], count["status"]) == ("count shop.lines", "passed")
    assert bounded["reason"] == "rows break it: total: 50 on the source, 50 on the target"
    assert noted["parts"][0]["look"].startswith('SELECT "t"."id", "t"."note" FROM "shop"."orders"')
    code, text, said = typed()
    assert "1 of 3 rules are kept" in text
    assert "validate --show-values" in said
    page, junit = (tmp_path / "page.html").read_text(), (tmp_path / "out.xml").read_text()
    assert "&lt;notes&gt; &amp; more" in page
    for form in (json.dumps(document), text, said, page, junit):
        assert SECRET not in form
    code, document, _ = typed("--json", "--show-values", "--html", "page.html")
    assert document["rules"][2]["parts"][0]["examples"][0]["source"] == {"note": SECRET}
    assert SECRET in (tmp_path / "page.html").read_text()
    assert SECRET in typed("--show-values")[1]


def test_the_page_needs_nothing_else(typed: Typed, tmp_path: Path) -> None:
    """No script, no address, no file beside it."""
    (tmp_path / "rules.yaml").write_text("rules:\n- {kind: count, table: shop.lines}\n")
    assert typed("--rules", "rules.yaml", "--html", "page.html")[0] == 0
    page = (tmp_path / "page.html").read_text()
    assert not [word for word in ("<script", "http", "src=", "@import", "url(") if word in page]
    assert "each side was read as it was" in page


def test_junit_is_read_by_another_parser(typed: Typed, tmp_path: Path) -> None:
    """A suite for each table, a case for each rule, sums that are right; a warning is skipped."""
    (tmp_path / "rules.yaml").write_text(
        """\
rules:
- {kind: count, table: shop.lines, name: "a\\u0007b <c>"}
- {kind: range, table: shop.orders, columns: [total], max: 150, severity: info}
- {kind: check, table: shop.orders, condition: total > 1}
- {kind: aggregate, sql: SELECT nothing}
""".replace("\\u0007", "")
    )
    assert typed("--rules", "rules.yaml", "--junit", "out.xml")[0] == 1
    root = minidom.parseString((tmp_path / "out.xml").read_bytes()).documentElement
    assert root is not None
    suites = root.getElementsByTagName("testsuite")
    found = {
        suite.getAttribute("name"): [
            suite.getAttribute(key) for key in ("tests", "failures", "errors", "skipped")
        ]
        for suite in suites
    }
    assert found == {
        "shop.lines": ["1", "0", "0", "0"],
        "shop.orders": ["2", "1", "0", "1"],
        "queries": ["1", "0", "1", "0"],
    }
    assert [root.getAttribute(key) for key in ("tests", "failures", "errors", "skipped")] == [
        *("4", "1", "1", "1")
    ]
    (failure,) = root.getElementsByTagName("failure")
    assert failure.getAttribute("message") == (
        "rows break it: rows: 1 on the source, 1 on the target"
    )
    (error,) = root.getElementsByTagName("error")
    assert error.getAttribute("type") == "CDCM-DB-ERROR"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rules:\n- {kind: count}\n", "rules.yaml:2: rules.0.table: is missing"),
        ("rules:\n- {kind: cuont, table: a.b}\n", "rules.yaml:2: rules.0: needs a kind: one of"),
        (
            "rules:\n- kind: range\n  table: s.t\n  columns: [a]\n  min: 1\n  tolerence: 1\n",
            "rules.yaml:6: rules.0.tolerence: is not known; did you mean rules.0.tolerance?",
        ),
        ("rules:\n- {kind: range, table: s.t, columns: [a]}\n", "needs min, max, or both"),
        (
            "rules:\n- {kind: count, table: s.t}\n- {kind: count, table: s.t}\n",
            "two are called 'count s.t': give each a `name` of its own",
        ),
        (
            "rules:\n- kind: count\n  table: shop.odrers\n",
            "rules.yaml:3: rules.0.table: shop.odrers is no table of the migration; did you mean "
            "shop.orders?",
        ),
        ("rules: []\n", "CDCM-VALIDATE-NONE"),
    ],
)
def test_faults_of_the_file_are_told_with_their_place(
    typed: Typed, tmp_path: Path, text: str, told: str
) -> None:
    """Exit code 2, whether the form is wrong or what it names."""
    (tmp_path / "rules.yaml").write_text(text)
    code, _, said = typed("--rules", "rules.yaml")
    assert code == 2
    assert told in said


def test_the_schema_describes_the_file(typed: Typed) -> None:
    """For an editor: each kind with its fields, and nothing else."""
    code, document, _ = typed("schema")
    assert code == 0
    assert all(
        one["additionalProperties"] is False
        for one in document["$defs"].values()
        if "properties" in one
    )
    assert len(document["properties"]["rules"]["items"]["discriminator"]["mapping"]) == 11
