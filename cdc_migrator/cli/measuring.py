"""What the verbs that measure a migration share: where, and by which limits it is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cdc_migrator.errors import Failed

if TYPE_CHECKING:
    from cdc_migrator.config.settings import Settings
    from cdc_migrator.model.retained import Retained
    from cdc_migrator.monitor.limits import Limits
    from cdc_migrator.monitor.sampler import Places
    from cdc_migrator.service.inspection import InspectOptions
    from cdc_migrator.service.measuring import WatchOptions

# Inspections may fail a few times before what was found is not known any more.
_INSPECTIONS = 5


def places(configured: Settings) -> Places:
    """Where the sampler measures. Without a local stack, Kafka and Connect stay unmeasured."""
    from cdc_migrator.cli.endpoints import endpoints
    from cdc_migrator.monitor.sampler import Places

    try:
        found = endpoints(configured)
    except Failed:
        found = None
    return Places(
        migration=configured.name,
        source_dsn=configured.source.dsn_with_password,
        target_dsn=configured.target.dsn_with_password,
        workers=found.workers if found else None,
        brokers=found.brokers if found else None,
        shall_move=shall_move(configured),
        look_at_fence=True,
        retained=retained(configured),
    )


def retained(configured: Settings) -> Retained:
    """How much log the source may keep for the slot."""
    from cdc_migrator.model.retained import Retained

    capture = configured.capture
    return Retained(
        capture.retained_wal_warn,
        capture.retained_wal_limit,
        capture.retained_wal_action,
        capture.drop_slot_confirmed,
    )


def shall_move(configured: Settings) -> Callable[[Sequence[str]], bool]:
    """Whether a table of the source moves, by its names."""
    from cdc_migrator.databases.postgres.catalog import chosen

    tables = configured.tables
    return lambda names: chosen(names, tables.include, tables.exclude)


def limits(configured: Settings) -> Limits:
    """What the gates measure by."""
    from cdc_migrator.config.rulebook import in_force
    from cdc_migrator.cutover.hooks.base import digest
    from cdc_migrator.monitor.limits import Limits

    ready, backup, rules = configured.ready, configured.backup, configured.validate
    return Limits(
        max_lag=ready.max_lag,
        max_compared_age=ready.max_proof_age,
        max_proof_age=configured.reconcile.max_proof_age,
        max_transaction_age=ready.max_transaction_age,
        min_runway=ready.min_runway,
        max_backup_age=backup.max_age if backup.required else None,
        max_inspection_age=_INSPECTIONS * ready.inspect_every,
        fence=configured.target.fence,
        schema_differs=ready.schema_differs,
        hooks=digest(configured.cutover.hooks) if configured.cutover.hooks else None,
        without_way_back=configured.cutover.without_way_back,
        rules=in_force(rules),
        max_rules_age=rules.max_age,
        stale_rules_pass=rules.stale == "pass",
        accepted=tuple(sorted(configured.accept.items())),
    )


def inspect_options(configured: Settings) -> InspectOptions:
    """What is inspected."""
    from cdc_migrator.service.inspection import InspectOptions

    return InspectOptions(
        configured.name,
        configured.source.dsn_with_password,
        configured.target.dsn_with_password,
        configured.grants,
    )


def watch_options(configured: Settings) -> WatchOptions:
    """What is watched once the target is open."""
    from cdc_migrator.service.measuring import WatchOptions

    return WatchOptions(
        configured.name,
        configured.source.dsn_with_password,
        configured.target.dsn_with_password,
        configured.watch,
    )
