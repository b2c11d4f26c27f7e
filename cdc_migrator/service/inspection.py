"""Look at what takes longer than a sample may, and keep what was found. Changes nothing else.

Reads only, one session a side, each statement under a time limit; what cannot be looked at is kept
as its error, so that nobody takes an older answer for a present one. The parts and their shapes are
those of `control.inspection`; what follows from them is decided in `monitor.inspected`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from cdc_migrator.backfill import sequence_sync
from cdc_migrator.backfill.diff.compare import DEFERRED
from cdc_migrator.backfill.diff.run import between
from cdc_migrator.control import (
    backups,
    cutover,
    deferring,
    inspection,
    load,
    migration,
    relations,
    schema,
    validation,
)
from cdc_migrator.control.inspection import MOST, Part
from cdc_migrator.control.load import TableLoad
from cdc_migrator.control.migration import Phase
from cdc_migrator.cutover.obstacles import obstacles
from cdc_migrator.databases.postgres import fence
from cdc_migrator.databases.postgres.coded import coded, speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import MigratorError
from cdc_migrator.model.parts import Difference, Severity
from cdc_migrator.model.tables import TableName

_LIMITS = {"statement_timeout": "10s", "lock_timeout": "2s"}
# Of the differences of the schemas these are the gate of keys and indexes.
_CONSTRAINTS = frozenset({"constraint", "index", "trigger"})

_HEALTH = """
SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::bool
"""
# Those that have written; a reader is in nobody's way.
_TRANSACTIONS = """
SELECT pid, name, seconds, prepared FROM (
    SELECT pid, usename::text AS name, extract(epoch FROM clock_timestamp() - xact_start)::float8
           AS seconds, false AS prepared
    FROM pg_stat_activity
    WHERE datname = current_database() AND backend_xid IS NOT NULL AND pid <> pg_backend_pid()
    UNION ALL
    SELECT NULL, gid, extract(epoch FROM clock_timestamp() - prepared)::float8, true
    FROM pg_prepared_xacts WHERE database = current_database()) AS open
ORDER BY seconds DESC NULLS LAST LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class InspectOptions:
    """Which migration, and where its databases are; the functions give complete connection
    strings. grants: privileges are compared, too."""

    migration: str
    source_dsn: Callable[[], str]
    target_dsn: Callable[[], str]
    grants: bool = False


def inspect(options: InspectOptions) -> dict[str, Part]:
    """Look at every part, and keep what was found in the target's control schema.

    Nothing is looked at before the migration streams. A target that takes no writes is told as
    such, and nothing is kept there.

    Raises:
        MigratorError: the target does not answer; CDCM-MIGRATION-MISSING, CDCM-TARGET-TAKEN.
    """
    called = f"cdcm-{options.migration}-inspect"
    with ExitStack() as stack:
        target = stack.enter_context(
            connect(options.target_dsn(), application_name=called, side="target", settings=_LIMITS)
        )
        with speaking("target", "looking at the server"):
            in_recovery, read_only = _row(target, _HEALTH)
            if not in_recovery:
                # Also where sessions are read-only unless they say otherwise.
                target.read_only = False
                schema.ensure(target, "target")
            there = migration.require(target, options.migration)
            if there.phase is not Phase.STREAM:
                return {}
            tables = load.read_tables(target)
        look = _Looking(target)
        ours, theirs = relations.of_source(tables), relations.of_target(tables)
        try:
            source = stack.enter_context(
                connect(
                    options.source_dsn(),
                    application_name=called,
                    side="source",
                    read_only=True,
                    settings=_LIMITS,
                )
            )
        except MigratorError as error:
            on_source = (inspection.SCHEMA, inspection.CONSTRAINTS, inspection.SEQUENCES)
            for part in (*on_source, inspection.SOURCE):
                look.keep(part, _broken(error))
        else:
            look.at(
                (inspection.SCHEMA, inspection.CONSTRAINTS),
                "source",
                lambda: _schemas(source, target, tables, options.grants),
            )
            look.at((inspection.SEQUENCES,), "target", lambda: [_sequences(source, target, tables)])
            look.at((inspection.SOURCE,), "source", lambda: [_source(source, ours)])
        health = {"in_recovery": in_recovery, "read_only": read_only}
        look.at((inspection.TARGET,), "target", lambda: [health | _target(target, theirs)])
        look.at((inspection.PREPARATIONS,), "target", lambda: [_preparations(target)])
        look.at((inspection.VALIDATION,), "target", lambda: [{"run": validation.latest(target)}])
        if not in_recovery:
            with speaking("target", "keeping what was inspected"):
                inspection.store(target, look.parts)
        return look.parts


class _Looking:
    """Looks at parts one after the other; each becomes what was found, or its error."""

    def __init__(self, target: psycopg.Connection) -> None:
        self._target = target
        self.parts: dict[str, Part] = {}

    def at(
        self, names: Sequence[str], side: str, look: Callable[[], Sequence[dict[str, Any]]]
    ) -> None:
        """Look at these parts at once. Raises where the target is lost."""
        try:
            found = look()
        except MigratorError as error:
            found = [_broken(error)] * len(names)
        except psycopg.Error as error:
            found = [_broken(coded(error, side, "looking at it"))] * len(names)
        for name, one in zip(names, found, strict=True):
            self.keep(name, one)

    def keep(self, name: str, found: dict[str, Any]) -> None:
        with speaking("target", "asking for the time"):
            at: datetime = _row(self._target, "SELECT clock_timestamp()")[0]
        self.parts[name] = Part(found, at)


def _broken(error: MigratorError) -> dict[str, Any]:
    return {"error": error.as_dict()}


def _schemas(
    source: psycopg.Connection,
    target: psycopg.Connection,
    tables: Sequence[TableLoad],
    grants: bool,
) -> list[dict[str, Any]]:
    """What differs: first all but constraints and indexes, then these."""
    deferred = deferring.waits(target)
    found = between(
        source,
        target,
        relations.plain(tables),
        loaded=True,
        grants=grants,
        deferred=deferred,
        routes=[one.route for one in tables if one.route is not None],
    )
    return [
        _differences(one for one in found if one.kind not in _CONSTRAINTS),
        _differences(one for one in found if one.kind in _CONSTRAINTS)
        | {"deferred": [f"{one.kind} {one.object}" for one in found if one.note == DEFERRED]},
    ]


def _differences(found: Iterable[Difference]) -> dict[str, Any]:
    telling = sorted(
        (one for one in found if one.severity is not Severity.INFO),
        key=lambda one: one.severity is not Severity.ERROR,
    )
    errors = sum(one.severity is Severity.ERROR for one in telling)
    return {
        "errors": errors,
        "warnings": len(telling) - errors,
        "differences": [
            {
                "kind": one.kind,
                "object": one.object,
                "attribute": one.attribute,
                "severity": str(one.severity),
            }
            for one in telling[:MOST]
        ],
    }


def _sequences(
    source: psycopg.Connection, target: psycopg.Connection, tables: Sequence[TableLoad]
) -> dict[str, Any]:
    decisions = sequence_sync.plan(
        source, target, relations.plain(tables), reshaped=relations.reshaped(tables)
    )
    failed = [
        {"sequence": str(one.name), **finding.as_dict()}
        for one in decisions
        for finding in one.findings
        if one.failed and finding.severity == "error"
    ]
    return {
        "sequences": len(decisions),
        "to_set": sum(one.changes for one in decisions),
        "failed": failed[:MOST],
    }


def _source(source: psycopg.Connection, tables: Sequence[TableName]) -> dict[str, Any]:
    fenceable = fence.read(source, tables)
    there = obstacles(source, [one.table for one in fenceable])
    (sees_all,) = _row(source, "SELECT pg_has_role('pg_read_all_stats', 'USAGE')")
    open_ = source.execute(_TRANSACTIONS, (MOST,)).fetchall()
    return {
        "obstacles": [
            {
                "kind": str(one.kind),
                "tables": [str(table) for table in one.tables[:MOST]],
                "name": one.name,
                "pid": one.pid,
                "seconds": one.seconds,
                "remedy": one.remedy,
            }
            for one in there
        ],
        "transactions": [
            {"pid": pid, "name": name, "seconds": seconds, "prepared": prepared}
            for pid, name, seconds, prepared in open_
        ],
        "sees_all": sees_all,
        "not_owned": [str(one.table) for one in fenceable if not one.owned],
    }


def _target(target: psycopg.Connection, tables: Sequence[TableName]) -> dict[str, Any]:
    there = fence.read(target, tables)
    return {"not_owned": [str(one.table) for one in there if not one.owned]}


def _preparations(target: psycopg.Connection) -> dict[str, Any]:
    backup = backups.latest(target)
    rehearsed = cutover.rehearsed(target)
    return {
        "backup": backup
        and {
            "kind": str(backup.kind),
            "place": backup.place,
            "taken_at": backup.taken_at.isoformat(),
        },
        "rehearsal": rehearsed
        and {
            "attempt": rehearsed.attempt,
            "ended_at": rehearsed.ended_at.isoformat() if rehearsed.ended_at else None,
            "hooks": rehearsed.options.get("hooks"),
        },
    }


def _row(conn: psycopg.Connection, query: str) -> tuple[Any, ...]:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row
