"""A mapping in migration.yaml: what it says, what it may not say, and where each word stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml

from cdc_migrator.config import reference
from cdc_migrator.config.loader import load
from cdc_migrator.config.mapping import places
from cdc_migrator.errors import ConfigurationError
from cdc_migrator.model.mapping import NO_BACK, Wanted, WantedHook

MINIMAL = """\
name: shop
source: {dsn: "postgresql://app@db1/shop"}
target: {dsn: "postgresql://app@db2/shop"}
"""
MAPPING = """\
mapping:
  - table: shop.customer
    to: crm.person
    keep: [id, name]
    rename: {name: full_name}
    cast: {total: "numeric(14,4)"}
    set:
      email: "'user' || id || '@example.invalid'"
      region: "'eu'"
    where: deleted_at IS NULL
    hook:
      call: my_names:folded
      reads: [full_name]
      gives:
        folded: text
  - {table: shop.customer, to: crm.address, keep: [id, street]}
  - {table: "shop.*", to: "crm.*"}
"""


def test_an_entry_says_what_is_wanted_of_a_table(workdir: Path) -> None:
    """Several entries may speak of one table; each field has its line. What is said of the way back
    may be said later."""
    path = workdir / "migration.yaml"
    path.write_text(MINIMAL + MAPPING)
    settings = load()
    first, second, whole = (one.wanted() for one in settings.mapping)
    assert first == Wanted(
        "shop.customer",
        "crm.person",
        keep=("id", "name"),
        rename={"name": "full_name"},
        cast={"total": "numeric(14,4)"},
        set={"email": "'user' || id || '@example.invalid'", "region": "'eu'"},
        where="deleted_at IS NULL",
        hook=WantedHook("my_names:folded", ("full_name",), {"folded": "text"}),
    )
    assert replace(first, back=NO_BACK, leads=True) == first
    assert (second.to, second.keep, whole.table) == ("crm.address", ("id", "street"), "shop.*")
    place = places(path)
    assert place(0, "set.region") == "migration.yaml:12: mapping.0.set.region"
    assert place(0, "hook.gives.folded") == "migration.yaml:18: mapping.0.hook.gives.folded"
    assert place(1, "where") == "migration.yaml:19: mapping.1.where"
    assert places(None)(2, "to") == "mapping.2.to"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{table: shop.customer}", "mapping.0: says nothing about the table"),
        ("{table: customer, to: crm.person}", "mapping.0.table"),
        ("{table: 'shop.*', to: crm.person}", "must both be schema.table, or both a whole schema"),
        ("{table: s.t, keep: [a], drop: [b]}", "keep and drop exclude each other"),
        ("{table: s.t, rename: {a: c, b: c}}", "rename gives two columns the same name"),
        ("{table: s.t, set: {a: ' '}}", "mapping.0.set.a"),
        ("{table: s.t, were: 'true'}", "did you mean mapping.0.where?"),
        ("{table: s.t, drop: [a]}, {table: s.t, drop: [b]}", "2 entries take s.t to s.t"),
        ("{table: s.t, hook: {call: f, reads: [a], gives: {b: text}}}", "mapping.0.hook.call"),
        (
            "{table: s.t, set: {b: '1'}, hook: {call: 'm:f', reads: [a], gives: {b: text}}}",
            "b: given by the hook, and by set or cast",
        ),
        (
            "{table: s.t, hook: {call: 'm:f', reads: [a, a], gives: {b: text}}}",
            "the hook reads a column twice",
        ),
        ("{table: s.t, hook: {call: 'm:f', reads: [], gives: {b: text}}}", "mapping.0.hook.reads"),
        ("{table: 's.*', to: 'a.*'}, {table: 's.*', to: 'b.*'}", "2 entries speak of s.*"),
    ],
)
def test_what_makes_no_sense_is_told_with_its_place(workdir: Path, entry: str, words: str) -> None:
    """Before any server is asked."""
    (workdir / "migration.yaml").write_text(f"{MINIMAL}mapping: [{entry}]\n")
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert words in caught.value.cause


def test_editors_know_it(workdir: Path) -> None:
    """By the JSON Schema; and the settings in force are shown whole."""
    document = yaml.safe_load(MINIMAL + MAPPING)
    jsonschema.validate(document, reference.json_schema())
    document["mapping"][0]["keeps"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, reference.json_schema())
    (workdir / "migration.yaml").write_text(MINIMAL + MAPPING)
    shown = reference.redacted(load())["mapping"]
    assert shown[0]["set"]["region"] == "'eu'"
    assert shown[0]["hook"]["gives"] == {"folded": "text"}
    assert shown[1]["keep"] == ["id", "street"]
