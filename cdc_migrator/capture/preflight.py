"""Look at both servers, Kafka and Connect before anything is made. Reads only.

What follows from the facts is decided in `findings`. What cannot be reached is a finding too, and
does not keep the rest from being looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cdc_migrator.capture import findings, rights
from cdc_migrator.capture import slot as slots
from cdc_migrator.capture.connect_rest import ConnectClient
from cdc_migrator.capture.connector import PLUGIN
from cdc_migrator.capture.findings import Finding, Severity
from cdc_migrator.capture.leftover import accepted, leftover
from cdc_migrator.control import migration, schema
from cdc_migrator.databases.postgres import catalog
from cdc_migrator.databases.postgres import names as quoted
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.inventory import left_behind
from cdc_migrator.errors import Failed, MigratorError, Refused
from cdc_migrator.model.naming import Names
from cdc_migrator.model.outside import Brokers, Workers
from cdc_migrator.model.tables import Table, TableName


@dataclass(frozen=True, slots=True)
class Preflight:
    """All findings, and the tables that would be migrated."""

    findings: tuple[Finding, ...]
    tables: tuple[Table, ...]

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


def check(
    source_dsn: str,
    target_dsn: str,
    workers: Workers,
    brokers: Brokers,
    names: Names,
    include: Sequence[str] | None,
    exclude: Sequence[str] = (),
    accept: Mapping[str, str] | None = None,
) -> Preflight:
    """Look at everything; raises nothing that a finding can say.

    Args:
        include, exclude: as in `catalog.read_tables`.
        accept: reasons for which the user accepts that something stays behind, by code.
    """
    found: list[Finding] = []
    tables: list[Table] = []
    version: int | None = None
    called = f"cdcm-{names.migration}-check"
    try:
        with connect(source_dsn, application_name=called, side="source") as source:
            version = source.info.server_version
            with speaking("source", "looking at the server and its tables"):
                tables = _source(source, source_dsn, names, include, exclude, found)
    except MigratorError as exc:
        found.append(findings.from_error(exc, "source"))
    try:
        with (
            connect(target_dsn, application_name=called, side="target") as target,
            speaking("target", "looking at the server and its tables"),
        ):
            _target(target, version, [table.name for table in tables], found)
    except MigratorError as exc:
        found.append(findings.from_error(exc, "target"))
    try:
        with ConnectClient(workers, patience=10.0) as client:
            versions = {p.name: p.version for p in client.plugins()}
            objections: list[str] = []
            if PLUGIN in versions:
                objections = client.validate(
                    PLUGIN, {"name": "cdcm-check", "exactly.once.support": "required"}
                ).get("exactly.once.support", [])
            found += findings.plugin(versions.get(PLUGIN), objections, PLUGIN)
    except MigratorError as exc:
        found.append(findings.from_error(exc, "connect"))
    try:
        found += rights.look(brokers, names)
    except MigratorError as exc:
        found.append(findings.from_error(exc, "kafka"))
    return Preflight(tuple(accepted(found, accept or {})), tuple(tables))


def _source(
    source: psycopg.Connection,
    source_dsn: str,
    names: Names,
    include: Sequence[str] | None,
    exclude: Sequence[str],
    found: list[Finding],
) -> list[Table]:
    facts = catalog.server_facts(source)
    found += findings.source(
        facts,
        slot_exists=slots.read(source, names.slot) is not None,
        may_replicate=_may_replicate(source_dsn),
    )
    tables = catalog.read_tables(source, include, exclude)
    found += findings.missing(include, exclude, catalog.read_tables(source))
    if not any(f.code.startswith("CDCM-TABLES-") for f in found) and not tables:
        found += findings.missing(None, (), tables)
    found += findings.identities(catalog.identity_problems(source, tables))
    found += findings.types(tables, names.migration)
    found += leftover(left_behind(source, include, exclude))
    return tables


def _may_replicate(source_dsn: str) -> bool:
    # Tried, not read from the role's attributes: managed services grant it in other ways, and
    # pg_hba.conf has a word in it.
    try:
        psycopg.connect(make_conninfo(source_dsn, replication="database")).close()
    except psycopg.OperationalError:
        return False
    return True


def _target(
    target: psycopg.Connection,
    source_version: int | None,
    tables: Sequence[TableName],
    found: list[Finding],
) -> None:
    may_set_role = True
    try:
        with target.transaction():
            target.execute("SET LOCAL session_replication_role = replica")
    except psycopg.errors.InsufficientPrivilege:
        may_set_role = False
    found += findings.target(catalog.server_facts(target), source_version, may_set_role)
    if schema.exists(target, "target") and migration.read(target) is not None:
        return  # a migration is under way: the load itself keeps watch over the tables
    there = {table.name for table in catalog.read_tables(target)}
    filled = []
    for name in tables:
        if name in there:
            query = sql.SQL("SELECT EXISTS (SELECT FROM ONLY {})").format(quoted.table(name))
            if target.execute(query).fetchone() == (True,):
                filled.append(name)
    found += findings.filled(filled)
