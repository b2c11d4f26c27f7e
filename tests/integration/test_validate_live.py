"""Rules while both sides move, and those that are proposed for a whole application."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
import yaml

from cdc_migrator.config.rules import RulesFile
from cdc_migrator.control import load, migration
from cdc_migrator.control import schema as control
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.demo import shop
from cdc_migrator.service import validating
from cdc_migrator.service.direction import Direction
from cdc_migrator.service.proposing import ProposeOptions, propose
from cdc_migrator.service.validating import ValidateOptions
from tests.faults import bank
from tests.support.fenced import let_in
from tests.support.live import LISTENS, LiveMigration, one, wait_for
from tests.support.private_postgres import private_database
from tests.support.stack import fresh_database

ROUNDS = 5
WRITTEN = "SELECT last_value FROM bank.ledger_id_seq"
RULES = [
    *({"kind": "count", "table": f"bank.{table}"} for table in bank.TABLES),
    {"kind": "aggregate", "name": "total", "sql": "SELECT sum(balance) FROM bank.account"},
    {
        "kind": "aggregate",
        "name": "moved",
        "sql": "SELECT writer, count(*), sum(amount) FROM bank.ledger GROUP BY writer",
        "key": ["writer"],
    },
    {
        "kind": "orphans",
        "table": "bank.ledger",
        "columns": ["debit"],
        "references": "bank.account",
    },
    {"kind": "range", "name": "still", "table": "bank.still", "columns": ["n"], "min": 0},
    {"kind": "unique", "table": "bank.seat", "columns": ["place"]},
    {"kind": "not_null", "table": "bank.document", "columns": ["body"]},
    *(
        {"kind": "spot", "table": f"bank.{table}"}
        for table in ("account", "ledger", "document", "seat", "still")
    ),
]


@pytest.mark.stack
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_no_rule_is_broken_by_what_is_on_its_way_and_a_planted_row_is_found(
    stack: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Round after round under writers; then the verdict on leaving the source says no."""
    with fresh_database(stack.source_dsn) as source, fresh_database(stack.target_dsn) as target:
        bank.create(source)
        with psycopg.connect(source, autocommit=True) as conn:
            # What nobody writes to: of a hot row the stream would soon write the right one.
            conn.execute("CREATE TABLE bank.still (id int PRIMARY KEY, n int)")
            conn.execute("INSERT INTO bank.still SELECT n, n FROM generate_series(1, 99) n")
        live = LiveMigration(
            tmp_path_factory.mktemp("rules"),
            "rules",
            source,
            target,
            stack,
            {"validate": {"rules": RULES}, "reconcile": {"continuous": False}},
        )

        rules = RulesFile.model_validate({"rules": RULES}).rules
        options = ValidateOptions(
            "rules", source, target, Direction("rules", source, target), rules, str
        )
        try:
            live.prepare()
            live.start("run")
            wait_for("the service listens", lambda: one(target, LISTENS))
            with bank.Bank(source, 100):
                for _ in range(ROUNDS):
                    before = one(source, WRITTEN)
                    report = validating.run(options)
                    assert report.aligned
                    assert [rule.judged for rule in report.results if not rule.passed] == []
                    assert one(source, WRITTEN) != before
                with let_in(target) as conn:
                    conn.execute("UPDATE bank.still SET n = -7 WHERE id = 7")
                found = json.loads(live.cli("validate", "-o", "json", check=1).stdout)
                names = {rule["name"] for rule in found["rules"] if rule["status"] == "failed"}
                assert names == {"still", "spot bank.still"}
                status = live.status()
                assert status["validation"]["id"] == found["run"]
                gates = status["ready"]["gates"]
                (told,) = (gate for gate in gates if gate["name"] == "validation")
                assert (told["verdict"], "still" in told["reason"]) == ("fail", True)
        finally:
            live.close()


def test_what_is_proposed_for_a_whole_application_is_kept_by_its_copy() -> None:
    """The demo's shop: enums, domains, partitions, keys of several columns, tables without one."""
    with private_database() as source:
        shop.create(source, 0.02)
        with psycopg.connect(source, autocommit=True) as conn:
            conn.execute("ANALYZE")
        text = propose(ProposeOptions("shop", source, ["*"], (), 60.0))
        rules = RulesFile.model_validate(yaml.safe_load(text)).rules
        kinds = {one.kind for one in rules}
        assert kinds >= {"orphans", "allowed", "range", "unique", "check", "freshness", "spot"}
        with private_database(like=source) as target:
            with connect(target, application_name="test", side="target") as conn:
                control.ensure(conn, "target")
                migration.create(conn, "shop")
                with connect(source, application_name="test") as other:
                    load.register(conn, [(table, 0) for table in read_tables(other)])
                conn.execute("UPDATE cdc_migrator.table_progress SET load_state = 'loaded'")
            report = validating.run(
                ValidateOptions(
                    "shop", source, target, Direction("shop", source, target), rules, str
                )
            )
    assert [one for one in report.results if not one.passed] == []
    assert len(report.results) == len(rules) > 100
