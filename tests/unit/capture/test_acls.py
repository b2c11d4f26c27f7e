"""The rights that are printed: as few as can be, each with its reason, and commands to copy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cdc_migrator.capture import acls
from cdc_migrator.capture.acls import Who
from cdc_migrator.cli.main import app
from cdc_migrator.model.outside import TopicsMade, Workers

MIGRATION = """
name: shop
source: {dsn: postgresql://db1/shop}
target: {dsn: postgresql://db2/shop}
kafka:
  bootstrap_servers: "kafka:9093"
  properties: {sasl.username: mover}
  topics: given
  replication_factor: 3
connect: {url: "https://connect:8083", secrets_dir: out, connector: team-a}
"""


def test_nothing_is_on_the_cluster_or_on_what_others_own() -> None:
    """Topics and transactions by this migration's own prefix; each with its reason."""
    wanted = acls.needed("shop", TopicsMade.OURS, Workers.at())
    ours = ("cdcm.shop.", "cdcm.shop_back.", "__debezium-heartbeat.cdcm.shop")
    for acl in wanted:
        assert acl.right.kind in ("topic", "group", "transactional-id")
        assert acl.why
        if acl.prefixed:
            assert acl.right.name.startswith((*ours, "connect-cluster-cdcm-shop"))
    assert len({(a.who, a.right, a.prefixed) for a in wanted}) == len(wanted)
    assert {a.right.operation for a in wanted if a.who is Who.SERVICE} == {
        "Create",
        "Read",
        "Delete",
        "DescribeConfigs",
    }


def test_topics_that_others_make_need_no_right_to_make_them() -> None:
    """Neither to make nor to remove them."""
    given = acls.needed("shop", TopicsMade.GIVEN, Workers.at())
    assert not {"Create", "Delete"} & {a.right.operation for a in given if a.who is Who.SERVICE}


def test_init_prints_them_as_commands_and_as_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the users that the settings and the options name; with the topics that are given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "migration.yaml").write_text(MIGRATION)
    told = CliRunner().invoke(app, ["init", "--acls", "--worker-group", "workers"])
    assert told.exit_code == 0, told.output
    lines = told.output.splitlines()
    commands = [line for line in lines if line.startswith("kafka-acls.sh")]
    assert any(
        "--allow-principal User:mover --operation Read --topic cdcm.shop. "
        "--resource-pattern-type prefixed" in line
        for line in commands
    )
    assert any("--transactional-id workers-team-a-" in line for line in commands)
    made = [line for line in lines if line.startswith("kafka-topics.sh")]
    assert len(made) == 4
    assert "--topic cdcm.shop.1.stream --partitions 1 --replication-factor 3" in made[0]
    assert "--config retention.ms=-1" in made[0]

    data = json.loads(CliRunner().invoke(app, ["init", "--acls", "-o", "json"]).output)
    assert len(data["acls"]) == len(commands)
    assert {one["principal"] for one in data["acls"]} == {"User:mover", "User:connect"}
    assert [topic["partitions"] for topic in data["topics"]] == [1, 1, 1, 1]
