"""Hooks are a list of groups, told apart by their kind, with faults told by their lines."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from cdc_migrator.config import reference
from cdc_migrator.config.hooks import Command, Pgbouncer, Route, Webhook
from cdc_migrator.config.loader import load
from cdc_migrator.errors import ConfigurationError

MINIMAL = """\
name: shop
source: {dsn: "postgresql://app@db1/shop"}
target: {dsn: "postgresql://app@db2/shop"}
cutover:
  hooks:
"""


def test_each_kind_is_read_with_its_own_keys(workdir: Path) -> None:
    """Paths are relative to the file, also in a list; what is secret is not shown."""
    (workdir / "migration.yaml").write_text(
        MINIMAL
        + """\
    - {kind: route, readers: [app]}
    - kind: pgbouncer
      name: pool
      console: {dsn: "host=pool user=admin password=hidden", password_file: pool.password}
      database: shop
      config: etc/pgbouncer.ini
    - {kind: command, argv: [dns, move], timeout: 30s, moments: [switch]}
    - kind: webhook
      url: https://chat/hidden
      headers: {X-Key: hidden}
      header_files: {Authorization: token}
"""
    )
    settings = load()
    route, pool, command, webhook = settings.cutover.hooks
    assert isinstance(route, Route)
    assert route.readers == ("app",)
    assert isinstance(pool, Pgbouncer)
    assert pool.config == workdir / "etc/pgbouncer.ini"
    assert pool.console.password_file == workdir / "pool.password"
    assert isinstance(command, Command)
    assert (command.timeout, command.moments) == (timedelta(seconds=30), ("switch",))
    assert isinstance(webhook, Webhook)
    assert webhook.header_files == {"Authorization": workdir / "token"}
    shown = reference.redacted(settings)["cutover"]["hooks"]
    assert [one["kind"] for one in shown] == ["route", "pgbouncer", "command", "webhook"]
    assert "hidden" not in str(shown)


@pytest.mark.parametrize(
    ("hooks", "told"),
    [
        ("    - {kind: route, reader: [a]}", "migration.yaml:6: cutover.hooks.0.reader: is not "
         "known; did you mean cutover.hooks.0.readers?"),
        ("    - {kind: nix}", "migration.yaml:6: cutover.hooks.0: needs a kind: one of route, "
         "pgbouncer, command, webhook"),
        ("    - {readers: []}", "migration.yaml:6: cutover.hooks.0: needs a kind: one of route, "
         "pgbouncer, command, webhook"),
        ("    - kind: command\n", "migration.yaml:6: cutover.hooks.0.argv: is missing"),
        ("    - kind: route\n    - kind: route", "migration.yaml:5: cutover.hooks: two are called "
         "the same: give each a `name` of its own"),
        ("    - kind: webhook\n      url: https://me:hidden@chat", "migration.yaml:7: "
         "cutover.hooks.0.url: must be http://host… or https://host…, without a user or password"),
    ],
)  # fmt: skip
def test_faults_are_told_by_key_and_line(workdir: Path, hooks: str, told: str) -> None:
    """As for any other setting; the kind that stands behind the number is not part of the key."""
    (workdir / "migration.yaml").write_text(MINIMAL + hooks)
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert caught.value.cause == told


def test_a_hooks_command_may_call_us(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is told in its environment is no unknown setting."""
    (workdir / "migration.yaml").write_text(MINIMAL + "    - kind: route")
    for name in ("MOMENT", "SIDE", "MIGRATION", "ATTEMPT", "SOURCE_HOST", "TARGET_DBNAME"):
        monkeypatch.setenv(f"CDC_MIGRATOR_{name}", "x")
    assert load().name == "shop"
