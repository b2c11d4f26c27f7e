"""The hooks that the settings ask for."""

from __future__ import annotations

from collections.abc import Sequence

from cdc_migrator.config import hooks as configured
from cdc_migrator.cutover.hooks.base import Hook
from cdc_migrator.cutover.hooks.command import CommandHook
from cdc_migrator.cutover.hooks.pgbouncer import PgbouncerHook
from cdc_migrator.cutover.hooks.route import RouteHook
from cdc_migrator.cutover.hooks.webhook import WebhookHook


def make(
    hooks: Sequence[configured.Hook], migration: str, source_dsn: str, target_dsn: str
) -> list[Hook]:
    """One hook for each group of settings, in their order; nothing is opened yet.

    Args:
        hooks: as ``cutover.hooks`` has them.
        source_dsn, target_dsn: of both databases, with passwords.
    """
    return [_hook(one, migration, source_dsn, target_dsn) for one in hooks]


def _hook(one: configured.Hook, migration: str, source_dsn: str, target_dsn: str) -> Hook:
    if isinstance(one, configured.Route):
        return RouteHook(one, migration, source_dsn, target_dsn)
    if isinstance(one, configured.Pgbouncer):
        return PgbouncerHook(one, migration)
    if isinstance(one, configured.Command):
        return CommandHook(one)
    return WebhookHook(one)
