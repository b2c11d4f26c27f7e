"""Rules stand in a file of their own, in migration.yaml, or in both; a result is of these."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from cdc_migrator.config import reference
from cdc_migrator.config.loader import load
from cdc_migrator.config.rulebook import UNREADABLE, in_force, read
from cdc_migrator.config.rules import RulesFile
from cdc_migrator.config.validate import digest
from cdc_migrator.errors import ConfigurationError
from cdc_migrator.model.tolerance import Tolerance

MINIMAL = """\
name: shop
source: {dsn: "postgresql://app@db1/shop"}
target: {dsn: "postgresql://app@db2/shop"}
"""
FILE = "rules:\n- {kind: count, table: shop.orders, tolerance: 0.1%}\n"
INLINE = """\
validate:
  file: rules.yaml
  rules:
    - {kind: not_null, table: shop.orders, columns: [total]}
"""


def write(directory: Path, settings: str = INLINE, rules: str | None = FILE) -> None:
    (directory / "migration.yaml").write_text(MINIMAL + settings)
    if rules is not None:
        (directory / "rules.yaml").write_text(rules)


def test_those_of_the_file_come_first_and_each_has_its_place(workdir: Path) -> None:
    """A path is relative to migration.yaml."""
    write(workdir)
    settings = load().validate
    assert settings.file == workdir / "rules.yaml"
    book = read(settings, workdir / "migration.yaml")
    assert [one.called for one in book.rules] == ["count shop.orders", "not_null shop.orders total"]
    assert book.place(0, "table") == "rules.yaml:2: rules.0.table"
    assert book.place(1, "columns") == "migration.yaml:7: validate.rules.0.columns"
    other = workdir / "other.yaml"
    other.write_text("rules:\n- {kind: count, table: s.t}\n")
    assert [one.called for one in read(settings, None, other).rules] == ["count s.t"]


def test_a_name_is_there_once_in_both(workdir: Path) -> None:
    """So that a result names one rule."""
    write(workdir, INLINE.replace("not_null", "count").replace(", columns: [total]", ""))
    with pytest.raises(ConfigurationError) as caught:
        read(load().validate, workdir / "migration.yaml")
    assert "two are called 'count shop.orders'" in caught.value.cause


def test_what_is_in_force_changes_with_the_rules_and_with_nothing_else(workdir: Path) -> None:
    """None without rules; where the file cannot be read, what no result is of."""
    write(workdir)
    first = in_force(load().validate)
    write(workdir, INLINE, "# a comment\n" + FILE)
    assert in_force(load().validate) == first
    write(workdir, INLINE, FILE.replace("0.1%", "0.2%"))
    assert in_force(load().validate) not in (first, None)
    write(workdir, INLINE, "rules: [")
    assert in_force(load().validate) == UNREADABLE
    write(workdir, "", None)
    assert in_force(load().validate) is None
    assert digest(()) != first


def test_the_settings_are_shown_without_pydantics_own_name_in_the_way(workdir: Path) -> None:
    """`validate` is a section like any other: in the file, the dump, the schema."""
    write(workdir)
    shown = reference.redacted(load())["validate"]
    assert (shown["max_age"], shown["stale"]) == ("1d", "block")
    assert shown["rules"][0]["columns"] == ["total"]
    assert "validate" in reference.json_schema()["properties"]


def test_an_editor_takes_the_file_for_right() -> None:
    """By the JSON Schema; and an unknown field for wrong."""
    schema = RulesFile.model_json_schema()
    jsonschema.validate(yaml.safe_load(FILE), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"rules": [{"kind": "count", "table": "a.b", "tolerence": 1}]}, schema)


@pytest.mark.parametrize("wrong", ["x", "-1", "1 %%", True, "1e3"])
def test_a_tolerance_is_a_number_or_a_percentage(wrong: object) -> None:
    """And nothing else."""
    with pytest.raises(ValueError, match="must be a number"):
        Tolerance.parse(wrong)
    assert [str(Tolerance.parse(one)) for one in (3, "3", "0.50%", 0.5)] == [
        "3",
        "3",
        "0.50%",
        "0.5",
    ]
    assert Tolerance.parse("0.5%").of(-200) == 1
