"""Rules are a list of groups as hooks are; what is left out is watched by default."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from cdc_migrator.config import reference
from cdc_migrator.config.loader import load
from cdc_migrator.config.values import parse_share, share_text
from cdc_migrator.config.watch import Latency, Prometheus
from cdc_migrator.errors import ConfigurationError

MINIMAL = """\
name: shop
source: {dsn: "postgresql://app@db1/shop"}
target: {dsn: "postgresql://app@db2/shop"}
"""
RULES = MINIMAL + "watch:\n  rules:\n"


def test_five_rules_watch_by_default_and_only_tell(workdir: Path) -> None:
    """With the thresholds that the page names."""
    (workdir / "migration.yaml").write_text(MINIMAL)
    watch = load().watch
    assert [rule.called for rule in watch.rules] == [
        "error_rate",
        "latency",
        "lag",
        "mismatch",
        "critical",
    ]
    assert {rule.action for rule in watch.rules} == {"alert"}
    assert watch.tolerance == 0.1
    (latency,) = (rule for rule in watch.rules if isinstance(rule, Latency))
    assert (latency.threshold, latency.times_baseline) == (None, 2.0)


def test_rules_of_ones_own_stand_instead(workdir: Path) -> None:
    """`for` is read and shown as it is written; what is secret is not shown."""
    (workdir / "migration.yaml").write_text(
        RULES
        + """\
    - {kind: error_rate, threshold: 5%, for: 2m, action: rollback}
    - kind: prometheus
      name: checkout-p95
      url: http://prometheus:9090
      query: histogram_quantile(0.95, sum(rate(checkout_seconds_bucket[1m])) by (le))
      threshold: 0.4
      headers: {X-Scope-OrgID: hidden}
      header_files: {Authorization: token}
    - {kind: sql, name: orders, statement: SELECT 1, threshold: 2, below: true}
    - {kind: command, argv: [probe], threshold: 1.5}
"""
    )
    settings = load()
    errors, query, *_ = settings.watch.rules
    assert (getattr(errors, "threshold"), errors.for_) == (0.05, timedelta(minutes=2))  # noqa: B009
    assert isinstance(query, Prometheus)
    assert query.header_files == {"Authorization": workdir / "token"}
    shown = reference.redacted(settings)["watch"]["rules"]
    assert shown[0]["for"] == "2m"
    assert "hidden" not in str(shown)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ("    - {kind: lag, fro: 1s}", "migration.yaml:6: watch.rules.0.fro: is not known; did "
         "you mean watch.rules.0.for?"),
        ("    - {kind: sql, statement: SELECT 1}", "migration.yaml:6: watch.rules.0.threshold: is "
         "missing"),
        ("    - kind: lag\n    - kind: lag", "migration.yaml:5: watch.rules: two are called the "
         "same: give each a `name` of its own"),
        ("    - {kind: error_rate, threshold: 5}", "migration.yaml:6: watch.rules.0.threshold: "
         "must lie between 0 and 1; write percentages with their sign, as 10%"),
        ("    - {kind: command, argv: [x], threshold: nan}", "migration.yaml:6: "
         "watch.rules.0.threshold: input should be a finite number"),
    ],
)  # fmt: skip
def test_faults_are_told_by_key_and_line(workdir: Path, rules: str, told: str) -> None:
    """As for any other setting."""
    (workdir / "migration.yaml").write_text(RULES + rules)
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert caught.value.cause == told


@pytest.mark.parametrize(
    ("text", "share"),
    [("10%", 0.1), ("10 %", 0.1), (0.5, 0.5), ("0.5", 0.5), (1, 1.0), ("200%", 2)],
)
def test_a_share_is_read_as_people_write_it(text: object, share: float) -> None:
    """And printed so that it is read again."""
    assert parse_share(text) == share
    assert parse_share(share_text(share)) == share
