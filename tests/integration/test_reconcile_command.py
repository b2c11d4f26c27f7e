"""The command as it is typed: what it prints, how it ends, what it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from cdc_migrator.cli.main import main
from cdc_migrator.service.reconcile import ReconcileOptions
from tests.integration.reconcile_rig import NAME, QuietAligner, World, world

Typed = Callable[..., tuple[int, Any, str]]


@pytest.fixture(scope="module")
def made() -> Iterator[World]:
    with world(
        "CREATE SCHEMA shop; CREATE TABLE shop.orders (id int PRIMARY KEY, v text); "
        "INSERT INTO shop.orders SELECT n, 'v' || n FROM generate_series(1, 200) n; "
        "CREATE TABLE shop.other (id int PRIMARY KEY)"
    ) as found:
        yield found


@pytest.fixture
def typed(
    made: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Typed:
    """Type a command line: its exit code, its JSON document, and what it said on stderr."""
    (tmp_path / "migration.yaml").write_text(
        yaml.safe_dump(
            {
                "name": NAME,
                "source": {"dsn": made.source_dsn},
                "target": {"dsn": made.target_dsn},
            }
        )
    )
    monkeypatch.chdir(tmp_path)

    @contextmanager
    def quiet(options: ReconcileOptions) -> Iterator[QuietAligner]:
        aligner = QuietAligner(options.source_dsn, options.target_dsn)
        try:
            yield aligner
        finally:
            aligner.release()

    monkeypatch.setattr("cdc_migrator.service.reconcile.aligning", quiet)

    def type_(*words: str) -> tuple[int, Any, str]:
        with pytest.raises(SystemExit) as ended:
            main(["reconcile", *words])
        said = capsys.readouterr()
        document = json.loads(said.out) if said.out.startswith("{") else said.out
        return int(ended.value.code or 0), document, said.err

    return type_


def test_equal_sides_end_with_0_and_say_as_of_when(typed: Typed) -> None:
    """Every table with its rows, its method and the moment of its proof."""
    code, document, _ = typed("-o", "json")
    assert code == 0
    assert document["schema_version"] == 1
    assert document["equal"] is True
    assert document["verified_as_of"]
    assert document["seconds"] > 0
    assert [(t["table"], t["method"], t["rows"]) for t in document["tables"]] == [
        ("shop.orders", "aligned", 200),
        ("shop.other", "aligned", 0),
    ]
    code, text, _ = typed()
    assert code == 0
    assert "equal: 200 rows" in text


def test_a_difference_ends_with_1_until_it_is_repaired(
    typed: Typed, made: World, tmp_path: Path
) -> None:
    """Named, planned, repaired, and kept as history."""
    made.target.execute("UPDATE shop.orders SET v = 'secret' WHERE id = 7")
    code, document, _ = typed("-o", "json", "--tables", "shop.or*")
    assert code == 1
    (table,) = document["tables"]
    (found,) = table["differences"]
    assert (found["kind"], found["key"], found["columns"]) == ("different", {"id": "7"}, ["v"])
    assert "secret" not in json.dumps(document)
    code, text, said = typed()
    assert code == 1
    assert "shop.orders id=7: different in v" in text
    assert "cdc-migrator reconcile --repair" in said
    code, document, _ = typed("--json", "--values")
    assert document["tables"][0]["differences"][0]["values"] == {
        "v": {"source": "v7", "target": "secret"}
    }
    code, document, _ = typed("--json", "--repair", "--dry-run", "--plan", "plan.json")
    assert code == 1
    planned = json.loads((tmp_path / "plan.json").read_text())
    assert planned["repairs"] == [{"table": "shop.orders", "keys": [["7"]]}]
    code, document, _ = typed("--json", "--repair")
    assert code == 0
    assert document["repaired"] == 1
    code, document, _ = typed("history", "shop.orders", "--json")
    assert code == 0
    (one,) = document["differences"]
    assert (one["state"], one["key"]) == ("repaired", {"id": "7"})
    assert document["runs"][0]["state"] == "differs"
    code, text, _ = typed("history")
    assert "repaired" in text


def test_what_is_accepted_no_longer_counts(typed: Typed, made: World) -> None:
    """With a reason, by its number; a number that is not open ends with 1."""
    made.target.execute("DELETE FROM shop.orders WHERE id = 9")
    _, document, _ = typed("--json")
    number = str(document["tables"][0]["differences"][0]["id"])
    assert typed("accept", number, "--reason", "agreed", "--by", "ann")[0] == 0
    assert typed("accept", number, "--reason", "agreed")[0] == 1
    code, document, _ = typed("--json")
    assert code == 0
    assert document["equal"] is True
    (found,) = document["tables"][0]["differences"]
    assert (found["state"], found["reason"], found["changed_by"]) == ("accepted", "agreed", "ann")
    made.target.execute("INSERT INTO shop.orders VALUES (9, 'v9')")
    assert typed()[0] == 0


def test_the_time_limit_ends_with_1_and_resume_goes_on(typed: Typed) -> None:
    """What is not finished is not equal."""
    code, document, _ = typed("--json", "--seconds", "0")
    assert code == 1
    assert document["finished"] is False
    assert typed("--json", "--resume")[0] == 0
    code, _, said = typed("--resume")
    assert code == 3
    assert "CDCM-RECONCILE-NOTHING" in said


def test_usage_is_checked(typed: Typed) -> None:
    """A mode that does not exist, a pattern without a table, a name without its schema."""
    assert typed("--mode", "nearly")[0] == 2
    assert typed("--tables", "nothing.*")[0] == 2
    assert typed("sql", "orders")[0] == 2
    code, text, _ = typed("sql", "shop.orders")
    assert code == 0
    assert 'FROM ONLY "shop"."orders"' in text
