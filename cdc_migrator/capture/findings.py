"""What preflight finds, decided from facts: no connection and no clock in here.

Every check returns findings; none raises, so that all faults are reported together.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from cdc_migrator.databases.postgres import side
from cdc_migrator.databases.postgres.catalog import IdentityProblem, ServerFacts
from cdc_migrator.errors import Failed, MigratorError
from cdc_migrator.model.tables import Table, TableName

MIN_VERSION = 15
MIN_DEBEZIUM = (3, 7)


class Severity(StrEnum):
    """REFUSE: the migration cannot be exact. WARN: it can, but somebody should know.

    INFO: how something is done that leaves a trace on the source.
    """

    REFUSE = "refuse"
    WARN = "warn"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of the set-up: what it is about, why it matters, what to do.

    `passing`: it may be gone by itself at the next look, such as a server that does not answer.
    """

    code: str
    severity: Severity
    object: str
    cause: str
    remedy: str
    passing: bool = False

    def as_dict(self) -> dict[str, str]:
        """The machine-readable form."""
        return {
            "code": self.code,
            "severity": self.severity.value,
            "object": self.object,
            "cause": self.cause,
            "remedy": self.remedy,
        }


def from_error(error: MigratorError, what: str) -> Finding:
    """A finding of an error that kept something from being looked at."""
    passing = isinstance(error, Failed)
    return Finding(error.code, Severity.REFUSE, what, error.cause, error.remedy, passing)


def _refuse(code: str, what: str, cause: str, remedy: str) -> Finding:
    return Finding(code, Severity.REFUSE, what, cause, remedy)


def source(facts: ServerFacts, slot_exists: bool, may_replicate: bool) -> list[Finding]:
    """The source server: version, logical decoding, room for one slot and two senders.

    Args:
        slot_exists: this migration has its slot already, so that it needs no room.
        may_replicate: a replication session could be opened.
    """
    found = []
    if facts.version_num // 10000 < MIN_VERSION:
        found.append(
            _refuse(
                "CDCM-SOURCE-VERSION",
                "source",
                f"the source runs PostgreSQL {facts.version}; {MIN_VERSION} or newer is needed",
                f"Upgrade the source to PostgreSQL {MIN_VERSION} or newer.",
            )
        )
    if facts.wal_level != "logical":
        found.append(
            _refuse(
                "CDCM-SOURCE-WAL-LEVEL",
                "source",
                f"wal_level is {facts.wal_level}: the source's log lacks what decoding needs",
                "ALTER SYSTEM SET wal_level = 'logical' and restart the source (managed services "
                "have a parameter for it).",
            )
        )
    if facts.in_recovery:
        found.append(
            _refuse(
                "CDCM-SOURCE-STANDBY",
                "source",
                "the source is a standby: publication and markers cannot be written there",
                "Name the primary in the source's connection string.",
            )
        )
    if not may_replicate:
        found.append(
            _refuse(
                "CDCM-SOURCE-REPLICATION",
                "source",
                "the source does not let this role open a replication session",
                "ALTER ROLE … REPLICATION (managed services have a role to grant for it), and "
                "allow it in pg_hba.conf.",
            )
        )
    if not slot_exists:
        found += _room(facts)
    if facts.encoding == "SQL_ASCII":
        found.append(
            _refuse(
                "CDCM-SOURCE-ENCODING",
                "source",
                "the source's encoding is SQL_ASCII: what its bytes mean is not known",
                "Move the data to a database with an encoding first.",
            )
        )
    if facts.max_slot_wal_keep_bytes is not None:
        found.append(
            Finding(
                "CDCM-SOURCE-SLOT-LIMIT",
                Severity.WARN,
                "source",
                "max_slot_wal_keep_size is set: a connector that is away for long loses its slot",
                "Watch the slot's retained bytes, or set it to -1 during the migration.",
            )
        )
    return found


def _room(facts: ServerFacts) -> Iterable[Finding]:
    for setting, (used, allowed), needed in (
        ("max_replication_slots", (facts.slots_used, facts.slots_allowed), 1),
        ("max_wal_senders", (facts.senders_used, facts.senders_allowed), 2),
    ):
        if allowed - used < needed:
            yield _refuse(
                "CDCM-SOURCE-SLOTS",
                "source",
                f"{used} of {allowed} are in use ({setting}); {needed} more are needed",
                f"Raise {setting} and restart the source, or drop slots that nobody uses.",
            )


def target(facts: ServerFacts, source_version: int | None, may_set_role: bool) -> list[Finding]:
    """The target server: not older than the source, and keys and triggers can be held off."""
    found = []
    if source_version is not None and facts.version_num // 10000 < source_version // 10000:
        found.append(
            _refuse(
                "CDCM-TARGET-VERSION",
                "target",
                f"the target runs PostgreSQL {facts.version}, older than the source",
                "Use a target of the source's version or a newer one.",
            )
        )
    if facts.in_recovery:
        found.append(
            _refuse(
                "CDCM-TARGET-STANDBY",
                "target",
                "the target is a standby: nothing can be written there",
                "Name the primary in the target's connection string.",
            )
        )
    if not may_set_role:
        found.append(
            _refuse(
                "CDCM-TARGET-REPLICA-ROLE",
                "target",
                "the role of the target's connection string may not set session_replication_role, "
                "so the target's triggers and foreign keys would act on what is loaded",
                "GRANT SET ON PARAMETER session_replication_role TO …; or use a superuser.",
            )
        )
    return found


def missing(
    include: Sequence[str] | None, exclude: Sequence[str], there: Sequence[Table]
) -> list[Finding]:
    """Patterns that match no table, each with the names that are nearest to it."""
    names = sorted({str(t.name) for t in there} | {str(t.root) for t in there if t.root})
    found = []
    for pattern in include or ():
        if not any(fnmatchcase(name, pattern) for name in names):
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.5)
            hint = f"Did you mean {' or '.join(near)}?" if near else "See `\\dt *.*` in psql."
            found.append(
                _refuse(
                    "CDCM-TABLES-MISSING",
                    pattern,
                    f"no table of the source matches {pattern!r} (names are schema.table)",
                    f"{hint} Correct `tables.include`.",
                )
            )
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in names):
            found.append(
                Finding(
                    "CDCM-TABLES-EXCLUDE",
                    Severity.WARN,
                    pattern,
                    f"no table of the source matches {pattern!r}, which is to be excluded",
                    "Correct or remove it in `tables.exclude`.",
                )
            )
    if not there and not found:
        found.append(
            _refuse(
                "CDCM-TABLES-NONE",
                "source",
                "the source has no table to migrate",
                "Check the database's name and `tables` in migration.yaml.",
            )
        )
    return found


def identities(problems: Sequence[IdentityProblem]) -> list[Finding]:
    """Tables whose updates and deletes would not say which row they mean."""
    return [
        _refuse(
            "CDCM-TABLE-NO-IDENTITY",
            str(problem.table),
            f"updates and deletes of {problem.table} would not say which row they mean: "
            f"{problem.reason}",
            f"{problem.remedy}; on the source (or exclude the table).",
        )
        for problem in problems
    ]


def types(tables: Sequence[Table], migration: str) -> list[Finding]:
    """Columns whose values travel beside the connector's events, and how."""
    found = []
    for beside in side.sides(tables, migration).values():
        told = "; ".join(side.reasons(beside))
        name = str(beside.of.name)
        if beside.whole:
            found.append(
                Finding(
                    "CDCM-TYPE-WHOLE-ROWS",
                    Severity.WARN,
                    name,
                    f"a trigger on {name} will send its whole rows, because no key that events "
                    f"hold exactly tells them apart; each batch then scans the table: {told}",
                    "Nothing, if the table is small or seldom written. Else give it a primary "
                    "key of simple types on the source.",
                )
            )
        else:
            when = "of every insert and update" if beside.always else "of odd values only"
            found.append(
                Finding(
                    "CDCM-TYPE-BESIDE",
                    Severity.INFO,
                    name,
                    f"a trigger on {name} will send the text {when} beside the connector's "
                    f"events: {told}",
                    "Nothing; `cdc-migrator abort` and `finish` remove the trigger.",
                )
            )
    return found


def filled(names: Iterable[TableName]) -> list[Finding]:
    """Target tables that hold rows before the load."""
    return [
        _refuse(
            "CDCM-TARGET-NOT-EMPTY",
            str(name),
            f"the target's table {name} holds rows that this migration has not loaded",
            "Empty or drop it, or use another target.",
        )
        for name in names
    ]


def plugin(version: str | None, objections: Collection[str], name: str) -> list[Finding]:
    """The Connect worker: Debezium is there and new enough, exactly-once source is on.

    Args:
        version: of Debezium's connector, or None if the worker has none.
        objections: what the worker says against ``exactly.once.support=required``.
    """
    wanted = ".".join(map(str, MIN_DEBEZIUM))
    if version is None:
        return [
            _refuse(
                "CDCM-CONNECT-PLUGIN",
                "connect",
                f"the Connect worker does not have {name}",
                f"Put Debezium's PostgreSQL connector {wanted} or newer into its plugin.path.",
            )
        ]
    found = []
    numbers = tuple(int(word) for word in re.findall(r"\d+", version)[:2])
    if numbers < MIN_DEBEZIUM:
        found.append(
            _refuse(
                "CDCM-CONNECT-VERSION",
                "connect",
                f"the Connect worker has Debezium {version}; {wanted} or newer is needed, because "
                "earlier ones can lose changes when they are restarted",
                f"Install Debezium's PostgreSQL connector {wanted} or newer in the worker.",
            )
        )
    if objections:
        found.append(
            _refuse(
                "CDCM-CONNECT-EXACTLY-ONCE",
                "connect",
                "the Connect worker has exactly-once source support off: after a restart parts of "
                "transactions would come twice",
                "Set exactly.once.source.support=enabled in every worker's configuration (first "
                "`preparing`, then `enabled`, one worker after the other) and restart them.",
            )
        )
    return found
