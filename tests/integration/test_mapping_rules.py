"""Rules on tables that change their shape: of the rows that the target should have and has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cdc_migrator.config.rules import RulesFile
from cdc_migrator.errors import ConfigurationError
from cdc_migrator.service import validating
from cdc_migrator.service.direction import Direction
from cdc_migrator.service.validating import ValidateOptions
from tests.integration.mapping_rig import Mapped, mapped_world
from tests.integration.reconcile_rig import NAME

PERSON = {"table": "shop.customer"}
ADDRESS = {"table": "shop.customer -> crm.address"}
EU = {"table": "eu.item"}
# Each rule with what is done to the target to break it, and what is told then.
BROKEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "count": (
        {"kind": "count", **PERSON},
        "DELETE FROM crm.person WHERE person_id = 11",
        "810 rows on the source, 809 on the target",
    ),
    "count of a shard": (
        {"kind": "count", **EU},
        "UPDATE crm.item SET region = 'us', id = 9000 WHERE (region, id) = ('eu', 7)",
        "700 rows on the source, 699 on the target",
    ),
    "count of some": (
        {"kind": "count", "where": "total < 100", **PERSON},
        "UPDATE crm.person SET total = 100 WHERE person_id = 5",
        "90 rows on the source, 89 on the target",
    ),
    "a value": (
        {"kind": "not_null", "columns": ["email"], **PERSON},
        "UPDATE crm.person SET email = NULL WHERE person_id = 5",
        "email: 0 on the source, 1 on the target",
    ),
    "a range": (
        {"kind": "range", "columns": ["total"], "min": 0, **PERSON},
        "UPDATE crm.person SET total = -1 WHERE person_id = 5",
        "total: 0 on the source, 1 on the target",
    ),
    "allowed": (
        {"kind": "allowed", "columns": ["region"], "values": ["eu"], **EU},
        "",
        "",
    ),
    "unique": (
        {"kind": "unique", "columns": ["street"], **ADDRESS},
        "UPDATE crm.address SET street = 'street 2' WHERE id = 1",
        "street: 0 on the source, 1 on the target",
    ),
    "check": (
        {"kind": "check", "condition": "email LIKE 'user%'", **PERSON},
        "UPDATE crm.person SET email = 'x' WHERE person_id = 5",
        "rows: 0 on the source, 1 on the target",
    ),
    "as declared": ({"kind": "type", **PERSON}, "", ""),
    "spot": (
        {"kind": "spot", "keys": [32], **PERSON},
        "UPDATE crm.person SET mood = 'ok', total = 7 WHERE person_id = 32",
        "1 different in mood, total",
    ),
    "spot of a shard": (
        {"kind": "spot", "keys": [9000], "random": 0, **EU},
        "INSERT INTO crm.item VALUES ('eu', 9000, 'x', 'y')",
        "1 missing on the source",
    ),
    "orphans of what is declared": (
        {"kind": "orphans", "table": "shop.note"},
        "DELETE FROM crm.person WHERE person_id = 1",
        "customer → shop.customer (person_id): 0 on the source, 3 on the target",
    ),
    "orphans of a shard": (
        {
            "kind": "orphans", "table": "shop.note", "columns": ["number"],
            "references": "eu.item",
        },
        "UPDATE crm.item SET region = 'us', id = 9000 WHERE (region, id) = ('eu', 7)",
        "number → eu.item (id): 0 on the source, 1 on the target",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def made() -> Iterator[Mapped]:
    with mapped_world() as found:
        yield found


def check(made: Mapped, *given: dict[str, Any]) -> validating.Report:
    world = made.made
    ends = (NAME, world.source_dsn, world.target_dsn)
    rules = RulesFile.model_validate({"rules": given}).rules
    options = ValidateOptions(
        *ends, Direction(*ends), rules, lambda number, field: f"rules.{number}.{field}", values=True
    )
    return validating.run(options, aligner=world.aligner)


def test_each_kind_of_rule_looks_at_the_rows_as_the_target_holds_them(made: Mapped) -> None:
    """By the target's columns, and of a shared table only what belongs to the rule's."""
    made.fill()
    every = [{"name": name, **rule} for name, (rule, _, _) in BROKEN.items()]
    for one in check(made, *every).results:
        assert one.passed, (one.name, one.judged.reason, one.code)
    for name, (rule, statement, told) in BROKEN.items():
        if not statement:
            continue
        made.fill()
        made.made.target.execute(statement.encode())
        (one,) = check(made, rule).results
        assert not one.passed, name
        assert told in one.judged.reason, name


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (
            {"kind": "not_null", "columns": ["name"], **PERSON},
            "name is no column of shop.customer on the source; did you mean full_name?",
        ),
        ({"kind": "orphans", "table": "shop.plain"}, "does not survive the mapping"),
    ],
)
def test_what_cannot_be_asked_is_told(made: Mapped, rule: dict[str, Any], told: str) -> None:
    """Never passed in silence."""
    with pytest.raises(ConfigurationError) as refused:
        check(made, rule)
    assert refused.value.code == "CDCM-VALIDATE-UNKNOWN"
    assert told in refused.value.cause
