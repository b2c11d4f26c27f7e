"""Look at both servers, Kafka and Connect before anything is made. Reads only.

What follows from the facts is decided in `checks`. What cannot be reached is a finding too, and
does not keep the rest from being looked at.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cdc_migrator.capture import findings, privileges, rights
from cdc_migrator.capture import slot as slots
from cdc_migrator.capture.checks import connect as plugins
from cdc_migrator.capture.checks import connector as connectors
from cdc_migrator.capture.checks import estimate as estimates
from cdc_migrator.capture.checks import here, kafka, locale
from cdc_migrator.capture.checks import source as sources
from cdc_migrator.capture.checks import tables as moving
from cdc_migrator.capture.checks import target as targets
from cdc_migrator.capture.checks.estimate import Estimate, Stated
from cdc_migrator.capture.connect_rest import ConnectClient
from cdc_migrator.capture.connector import PLUGIN
from cdc_migrator.capture.findings import Finding, Severity
from cdc_migrator.capture.leftover import accepted, leftover
from cdc_migrator.capture.topics import MAX_MESSAGE_BYTES, Topics
from cdc_migrator.control import deferring, migration, schema
from cdc_migrator.control.migration import Phase
from cdc_migrator.databases.postgres import acting, catalog, ddl_trigger, grants, sizes
from cdc_migrator.databases.postgres import names as quoted
from cdc_migrator.databases.postgres.coded import coded, speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.decoding import decoding_facts
from cdc_migrator.databases.postgres.inventory import left_behind
from cdc_migrator.databases.postgres.locale import LocaleFacts, locale_facts, session_defaults
from cdc_migrator.errors import Failed, MigratorError, Refused
from cdc_migrator.model.destinations import destinations
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.mapping import Wanted
from cdc_migrator.model.naming import Names
from cdc_migrator.model.outside import Brokers, TopicsMade, Workers
from cdc_migrator.model.tables import Table, TableName
from cdc_migrator.native.library import library

# Where the brokers keep their transactions, once there was one.
_TRANSACTIONS = "__transaction_state"


@dataclass(frozen=True, slots=True)
class Preflight:
    """All findings, the tables that would be migrated, and what is to be expected of that."""

    findings: tuple[Finding, ...]
    tables: tuple[Table, ...]
    estimate: Estimate | None = None

    @property
    def refused(self) -> bool:
        """Whether a finding stands against the migration."""
        return bool(self._against)

    @property
    def passing(self) -> bool:
        """Whether all that stands against it may be gone by itself at the next look."""
        return self.refused and all(finding.passing for finding in self._against)

    @property
    def _against(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity is Severity.REFUSE]

    def require(self) -> None:
        """Raise the first finding that stands against the migration, if any does.

        Raises:
            Refused: it does until its remedy is done. Failed: nothing but `passing` ones do.
        """
        against = sorted(self._against, key=lambda finding: finding.passing)
        if against:
            more = f" (and {len(against) - 1} more: `cdc-migrator check`)" if against[1:] else ""
            kind = Failed if self.passing else Refused
            raise kind(against[0].code, against[0].cause + more, against[0].remedy)


@dataclass(slots=True)
class _Seen:
    """What is known of the source when the target is looked at; None where it did not answer."""

    version: int | None = None
    tables: Sequence[Table] = ()
    locale: LocaleFacts | None = None
    defaults: Mapping[str, str] | None = None
    firing: Mapping[TableName, tuple[str, ...]] | None = None
    secured_for_owners: frozenset[TableName] = frozenset()
    estimate: Estimate | None = None
    log_position: int | None = None
    log_read_at: float = 0.0
    under_way: bool = False
    mapped: Mapping[TableName, Sequence[TableName]] = field(default_factory=dict)

    @property
    def plain(self) -> list[TableName]:
        """The tables that go to those of their names."""
        return [table.name for table in self.tables if table.name not in self.mapped]

    @property
    def shaped(self) -> list[TableName]:
        """The target's tables that the others go to."""
        return sorted({one for several in self.mapped.values() for one in several})


def check(
    source_dsn: str,
    target_dsn: str,
    workers: Workers,
    brokers: Brokers,
    names: Names,
    include: Sequence[str] | None,
    exclude: Sequence[str] = (),
    accept: Mapping[str, str] | None = None,
    *,
    stated: Stated = Stated(),
    replication_factor: int = 1,
    connector: Mapping[str, str] | None = None,
    way_back: bool = False,
    wanted: Sequence[Wanted] = (),
) -> Preflight:
    """Look at everything; raises nothing that a finding can say.

    Args:
        include, exclude: as in `catalog.read_tables`.
        accept: reasons for which the user accepts a finding, by code.
        stated: what the user says that cannot be measured, and by what it is judged.
        replication_factor: of the stream's topic; -1 for the brokers' default.
        connector: settings of the user's own for the connector.
        way_back: one is wanted, and its roles are looked at, too.
        wanted: what is said of tables that go to others than those of their names.
    """
    found = here.native(library() is not None)
    seen = _Seen()
    secured: frozenset[TableName] = frozenset()
    called = f"cdcm-{names.migration}-check"
    try:
        with connect(source_dsn, application_name=called, side="source") as source:
            seen.version = source.info.server_version
            with speaking("source", "looking at the server and its tables"):
                _source(source, source_dsn, names, include, exclude, found, seen)
                known = [table.name for table in seen.tables]
                secured = grants.look(source, known).secured
                found += privileges.look(source, source_dsn, "source", known, way_back)
    except MigratorError as exc:
        found.append(findings.from_error(exc, "source"))
    try:
        with (
            connect(target_dsn, application_name=called, side="target") as target,
            speaking("target", "looking at the server and its tables"),
        ):
            seen.mapped = destinations(wanted, seen.tables)
            _target(target, target_dsn, found, seen)
            known = [*seen.plain, *seen.shaped]
            found += privileges.look(target, target_dsn, "target", known, way_back, secured)
    except MigratorError as exc:
        found.append(findings.from_error(exc, "target"))
    try:
        with ConnectClient(workers, patience=10.0) as client:
            _connect(client, found)
    except MigratorError as exc:
        found.append(findings.from_error(exc, "connect"))
    try:
        found += connectors.connector(connectors.made(names, connector or {}))
    except MigratorError as exc:
        found.append(findings.from_error(exc, "connector"))
    try:
        _kafka(brokers, names, replication_factor, found)
    except MigratorError as exc:
        found.append(findings.from_error(exc, "kafka"))
    try:
        _expect(source_dsn, called, stated, found, seen)
    except MigratorError as exc:
        found.append(findings.from_error(exc, "source"))
    return Preflight(tuple(accepted(found, accept or {})), tuple(seen.tables), seen.estimate)


def _source(
    source: psycopg.Connection,
    source_dsn: str,
    names: Names,
    include: Sequence[str] | None,
    exclude: Sequence[str],
    found: list[Finding],
    seen: _Seen,
) -> None:
    facts = catalog.server_facts(source)
    if not facts.in_recovery:
        seen.log_read_at, seen.log_position = time.monotonic(), sizes.log_position(source)
    found += sources.server(
        facts,
        slot_exists=slots.read(source, names.slot) is not None,
        may_replicate=_may_replicate(source_dsn),
        role=grants.users(source_dsn, source.info.user)[Role.CAPTURE],
    )
    found += sources.decoding(decoding_facts(source))
    if not facts.in_recovery:
        found += sources.telling(ddl_trigger.up(source) or ddl_trigger.may_make(source))
    seen.locale = locale_facts(source)
    found += locale.stale(seen.locale, "source")
    seen.defaults = _defaults(source_dsn, "source")
    tables = seen.tables = catalog.read_tables(source, include, exclude)
    found += moving.missing(include, exclude, catalog.read_tables(source))
    if not any(f.code.startswith("CDCM-TABLES-") for f in found) and not tables:
        found += moving.missing(None, (), tables)
    found += moving.identities(catalog.identity_problems(source, tables))
    found += moving.types(tables, names.migration)
    hidden, seen.secured_for_owners = acting.secured(source)
    found += moving.row_security(tables, hidden)
    found += moving.changing_keys(tables, acting.keys_meant_to_change(source))
    found += moving.alike(tables)
    found += leftover(left_behind(source, include, exclude))
    seen.firing = acting.firing(source)
    seen.estimate = _measured(source, tables, facts.max_slot_wal_keep_bytes)


def _may_replicate(source_dsn: str) -> bool:
    # Tried, not read from the role's attributes: managed services grant it in other ways, and
    # pg_hba.conf has a word in it.
    dsn = login(source_dsn, Role.CAPTURE)
    try:
        psycopg.connect(make_conninfo(dsn, replication="database")).close()
    except psycopg.OperationalError:
        return False
    return True


def _defaults(dsn: str, side: str) -> Mapping[str, str]:
    try:
        return session_defaults(dsn)
    except psycopg.Error as exc:
        raise coded(exc, side, "reading the settings that sessions begin with") from None


def _measured(
    source: psycopg.Connection, tables: Sequence[Table], log_limit: int | None
) -> Estimate:
    """How much there is, and how fast one session reads the beginning of the largest table."""
    estimate = Estimate(
        tables=len(tables),
        rows=sum(table.estimated_rows for table in tables),
        bytes=sum(table.bytes for table in tables),
        bytes_with_indexes=sizes.with_indexes(source, [table.name for table in tables]),
        log_limit=log_limit,
    )
    if estimate.bytes < estimates.WORTH_SAYING:
        return estimate
    largest = max(tables, key=lambda table: table.bytes)
    sample = sizes.read_sample(source, largest)
    if sample is None:
        return estimate
    return replace(
        estimate, read_bytes=sample[0], read_seconds=sample[1], read_table=str(largest.name)
    )


def _target(target: psycopg.Connection, target_dsn: str, found: list[Finding], seen: _Seen) -> None:
    tables = [*seen.plain, *seen.shaped]
    role = grants.users(target_dsn, target.info.user)[Role.APPLY]
    facts = catalog.server_facts(target)
    found += targets.server(facts, seen.version)
    try:
        if not deferring.may_hold_off(target_dsn):
            found += _acting(target, role, tables)
    except MigratorError as exc:
        found.append(findings.from_error(exc, "target"))
    there_locale = locale_facts(target)
    found += locale.stale(there_locale, "target")
    if seen.locale is not None:
        found += locale.between(seen.locale, there_locale)
    if seen.defaults is not None:
        found += locale.defaults(seen.defaults, _defaults(target_dsn, "target"))
    coming = {table: some for table, some in (seen.firing or {}).items() if table in seen.plain}
    found += targets.triggers(tables, acting.firing(target), coming)
    active, _ = acting.secured(target)
    found += targets.row_security(tables, active, seen.secured_for_owners, acting.bypasses(target))
    if schema.exists(target, "target") and migration.read(target) is not None:
        # A migration is under way: the load itself keeps watch over the tables.
        seen.under_way = True
        return
    if seen.estimate is not None:
        seen.estimate = replace(
            seen.estimate,
            free_bytes=sizes.free_here(target),
            free_basis="measured where its data is: the server runs on this machine",
        )
    there = catalog.read_targets(target)
    ways = [one for several in seen.mapped.values() for one in several]
    filled = []
    # Of a table that several go to, each one's rows are looked for when it is loaded.
    for name in (one for one in tables if ways.count(one) < 2):
        if name in there and name not in active:
            query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(
                quoted.alone(name, there[name].divided)
            )
            if target.execute(query).fetchone() == (True,):
                filled.append(name)
    found += targets.filled(filled)


def _acting(target: psycopg.Connection, role: str, tables: Sequence[TableName]) -> list[Finding]:
    try:
        there = migration.read(target) if schema.exists(target, "target") else None
        phase = there.phase if there else Phase.CREATED
        begun_otherwise = phase.reached(Phase.SCHEMA) and not deferring.defers(target)
    except psycopg.errors.InsufficientPrivilege:
        # One was begun, by a role that may read it.
        return targets.acting(role, True, [])
    acts = [] if phase.reached(Phase.SWITCHED) else acting.always(target, tables)
    return targets.acting(role, begun_otherwise, acts)


def _connect(client: ConnectClient, found: list[Finding]) -> None:
    found += plugins.worker(client.version())
    versions = {p.name: p.version for p in client.plugins()}
    objections: Mapping[str, list[str]] = {}
    if PLUGIN in versions:
        objections = client.validate(PLUGIN, {"name": "cdcm-check", **plugins.ASKED})
    found += plugins.plugin(versions.get(PLUGIN), objections, PLUGIN)


def _kafka(brokers: Brokers, names: Names, replication_factor: int, found: list[Finding]) -> None:
    lacking = rights.look(brokers, names)
    found += lacking
    if any(one.severity is Severity.REFUSE for one in lacking):
        return  # what follows would only be told that it may not look
    topics = Topics(brokers, timeout=10.0)
    there = topics.names()
    if names.topic in there:
        found += kafka.topic(names.topic, None, topics.differences(names.topic))
    elif brokers.topics is TopicsMade.OURS:
        found += kafka.topic(names.topic, topics.objection(names.topic, replication_factor), ())
    found += kafka.brokers(
        topics.broker_settings(), replication_factor, MAX_MESSAGE_BYTES, _TRANSACTIONS in there
    )


def _expect(
    source_dsn: str, called: str, stated: Stated, found: list[Finding], seen: _Seen
) -> None:
    """What follows from all that was measured; waits for the rest of the time to measure in."""
    if seen.estimate is None or seen.log_position is None:
        return
    time.sleep(max(stated.measure - (time.monotonic() - seen.log_read_at), 0.0))
    with (
        connect(source_dsn, application_name=called, side="source") as source,
        speaking("source", "looking at the growth of its log"),
    ):
        written = sizes.log_position(source) - seen.log_position
        seconds = time.monotonic() - seen.log_read_at
    seen.estimate = replace(
        seen.estimate,
        held_to=stated.max_bytes_per_second,
        log_bytes=written,
        log_seconds=round(seconds, 3),
    )
    if stated.free_bytes is not None:
        seen.estimate = replace(
            seen.estimate,
            free_bytes=stated.free_bytes,
            free_basis="as target.free_bytes says",
        )
    if not seen.under_way:
        found += estimates.expected(seen.estimate, stated.min_runway)
