"""What `report` and `plan` share: the evidence, gathered by the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdc_migrator.config import watch
from cdc_migrator.config.values import size_text

if TYPE_CHECKING:
    from cdc_migrator.config.settings import Settings
    from cdc_migrator.service.evidence import Evidence, Said


def evidence(configured: Settings) -> Evidence:
    """What is known now. Raises as `service.gathering.gather`."""
    from cdc_migrator.cli.measuring import inspect_options, limits, places
    from cdc_migrator.monitor.sampler import Sampler
    from cdc_migrator.service.gathering import gather
    from cdc_migrator.service.journal import Journals

    where = Journals(
        configured.name,
        configured.source.dsn_with_password(),
        configured.target.dsn_with_password(),
    )
    with Sampler(places(configured)) as sampler:
        return gather(
            where, said(configured), sampler, limits(configured), inspect_options(configured)
        )


def said(configured: Settings) -> Said:
    """What the settings say that is repeated."""
    from cdc_migrator.service.evidence import Said

    return Said(
        hooks=tuple(hook.name or hook.kind for hook in configured.cutover.hooks),
        throttle=_throttle(configured),
        budget_seconds=configured.cutover.budget.total_seconds(),
        without_way_back=configured.cutover.without_way_back,
        watch=tuple(sentence(rule) for rule in configured.watch.rules),
        decide=configured.people.decide,
        tell=configured.people.tell,
    )


def sentence(rule: watch.Rule) -> str:
    """What a rule watches and what it does, for who does not know the settings."""
    side = "below" if getattr(rule, "below", False) else "above"
    match rule:
        case watch.ErrorRate():
            beyond = f"more than {rule.threshold:.3g} of the target's transactions are rolled back"
        case watch.Latency(threshold=None):
            beyond = (
                f"the target takes more than {rule.times_baseline:g} times as long as the source "
                "did in its baseline"
            )
        case watch.Latency():
            beyond = f"the target takes more than {rule.threshold:g} ms on average"
        case watch.Lag():
            beyond = f"the source is more than {rule.threshold.total_seconds():g} s behind"
        case watch.Mismatch():
            beyond = f"more than {rule.threshold} rows differ, as a comparison has found"
        case watch.Critical():
            beyond = "the way back has halted, or tables of the source have lost their fence"
        case watch.Prometheus():
            beyond = f"Prometheus answers to `{rule.query}` a number {side} {rule.threshold:g}"
        case watch.Sql():
            beyond = f"the {rule.side} returns a number {side} {rule.threshold:g}"
        case watch.Command():
            beyond = f"`{rule.argv[0]}` prints a number {side} {rule.threshold:g}"
    lasting = rule.for_.total_seconds()
    time = f", for {lasting:g} s" if lasting else ""
    does = "cdc-migrator goes back by itself" if rule.action == "rollback" else "an alert is raised"
    return f"{rule.called}: {beyond}{time}: {does}"


def _throttle(configured: Settings) -> tuple[tuple[str, str], ...]:
    load = configured.load
    limits = {
        "rows a second": load.max_rows_per_second,
        "bytes a second": load.max_bytes_per_second and size_text(load.max_bytes_per_second),
        "replica lag": load.max_replica_lag and f"{load.max_replica_lag.total_seconds():g} s",
        "active sessions": load.max_active_sessions,
    }
    return tuple((name, str(value)) for name, value in limits.items() if value is not None)
