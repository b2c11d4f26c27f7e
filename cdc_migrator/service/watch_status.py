"""How the rules stand: what the service has found last, or what is measured on the spot."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from cdc_migrator.config.watch import Rule
from cdc_migrator.control import migration, schema, watch
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.logins import Role, login
from cdc_migrator.service.measuring import Measuring, WatchOptions, condition

_LOOK_SECONDS = 1.0
# A turn may take that much longer than its pause.
_SLACK_SECONDS = 45.0


def read(options: WatchOptions, now: bool = False) -> dict[str, Any]:
    """The document of `watch list`.

    Args:
        now: measure each number here and now. What takes two looks takes a second.

    Returns:
        ``open``: whether the target is the open side; ``watching``: whether the service has
        looked at the rules lately; ``settling``: no rule counts yet; ``rules``; ``firings``, the
        latest first. A rule's ``state`` is null where nobody watches, ``beyond`` is there only
        with `now`.

    Raises:
        MigratorError: the target does not answer; CDCM-MIGRATION-MISSING, CDCM-TARGET-TAKEN.
    """
    with (
        connect(
            login(options.target_dsn(), Role.MONITOR),
            application_name=f"cdcm-{options.migration}-watch-status",
            side="target",
            read_only=True,
        ) as conn,
        speaking("target", "reading how the rules stand"),
    ):
        migration.require(conn, options.migration)
        opening = watch.opening(conn)
        shown = watch.shown(conn) if schema.has(conn, "inspection") else None
        fired = watch.firings(conn) if schema.has(conn, "watch_firing") else []
    found: dict[str, Any] = {}
    if opening is not None and shown is not None:
        part, age = shown
        fresh = age < 3 * float(part.found["every_seconds"]) + _SLACK_SECONDS
        if fresh and part.found["attempt"] == opening.attempt:
            found = dict(part.found)
    rows = {row["rule"]: row for row in found.get("rules", ())}
    listed = [rows.get(rule.called) or _idle(rule) for rule in options.watch.rules]
    return {
        "migration": options.migration,
        "open": opening is not None,
        "watching": bool(found),
        "settling": bool(found.get("settling")),
        "rules": _measured(options, listed) if now else listed,
        "firings": [asdict(one) for one in fired],
    }


def _idle(rule: Rule) -> dict[str, Any]:
    """A rule that nobody has looked at since the target was opened."""
    asked = condition(rule, 0.0)
    return {
        "rule": rule.called,
        "kind": rule.kind,
        "action": rule.action,
        "number": None,
        "threshold": asked.threshold,
        "below": asked.below,
        "for_seconds": asked.lasting,
        "state": None,
        "since": None,
        "long_unknown": False,
        "why": None,
        "fired_at": None,
        "acted": None,
        "error": None,
    }


def _measured(options: WatchOptions, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """These rows with what is measured now."""
    with Measuring(options) as measuring:
        taken = measuring.take()
        if any(one.rule.kind in ("error_rate", "latency") for one in taken):
            time.sleep(_LOOK_SECONDS)
            taken = measuring.take()
    return [
        {
            **row,
            "number": one.measured.number,
            "threshold": one.condition.threshold,
            "why": one.why,
            "beyond": None if one.number is None else one.condition.beyond(one.number),
        }
        for row, one in zip(rows, taken, strict=True)
    ]
