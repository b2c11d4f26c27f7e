"""What does not move, as findings: it stands against the migration until somebody accepts it.

Decides only: no connection and no clock in here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from cdc_migrator.capture.findings import Finding, Severity, warn
from cdc_migrator.databases.postgres.inventory import Kind, LeftBehind

# Code, severity, what happens to it, what to do.
_ABOUT: Mapping[Kind, tuple[str, Severity, str, str]] = {
    Kind.LARGE_OBJECT: (
        "CDCM-LEFT-LARGE-OBJECTS",
        Severity.REFUSE,
        "large objects are not in the log that changes are captured from: none of them moves",
        "Move them with pg_dump --large-objects while the application does not write them, or "
        "store them as bytea.",
    ),
    Kind.UNLOGGED: (
        "CDCM-TABLE-UNLOGGED",
        Severity.REFUSE,
        "an unlogged table is made on the target, but stays empty",
        "ALTER TABLE … SET LOGGED on the source, if its rows shall move.",
    ),
    Kind.FOREIGN_TABLE: (
        "CDCM-LEFT-FOREIGN-TABLES",
        Severity.REFUSE,
        "a foreign table is made neither with its server nor with its user mappings",
        "Make server, user mapping and foreign table on the target.",
    ),
    Kind.SUBSCRIPTION: (
        "CDCM-LEFT-SUBSCRIPTIONS",
        Severity.REFUSE,
        "a subscription keeps writing to the source and is not made on the target",
        "Make it on the target after the switch, from the same publisher's position.",
    ),
    Kind.EVENT_TRIGGER: (
        "CDCM-LEFT-EVENT-TRIGGERS",
        Severity.REFUSE,
        "an event trigger would act while the schema is made, and is left out",
        "Make it on the target after the switch.",
    ),
    Kind.JOB: (
        "CDCM-LEFT-JOBS",
        Severity.REFUSE,
        "jobs run where they are, and would run twice if they were copied",
        "Make them on the target when the application is switched, and end them on the source.",
    ),
    Kind.SEQUENCE: (
        "CDCM-LEFT-SEQUENCES",
        Severity.REFUSE,
        "a sequence stays behind with the table that owns it, and with it the default of a table "
        "that moves: inserts that rely on it will fail on the target",
        "Include the table that owns it; or ALTER SEQUENCE … OWNED BY NONE on the source, so that "
        "it moves; or make sequence and default on the target.",
    ),
    Kind.PUBLICATION: (
        "CDCM-LEFT-PUBLICATIONS",
        Severity.WARN,
        "a publication is not made on the target, and its subscribers stay with the source",
        "Make it on the target, and point its subscribers there after the switch.",
    ),
    Kind.TABLESPACE: (
        "CDCM-LEFT-TABLESPACES",
        Severity.WARN,
        "tables and indexes of a tablespace are made in the same one, which must be there",
        "CREATE TABLESPACE on the target under the same name.",
    ),
    Kind.ROLE: (
        "CDCM-LEFT-ROLES",
        Severity.INFO,
        "roles, owners and privileges are not copied",
        "Make the roles on the target (pg_dumpall --roles-only) and grant them what they need.",
    ),
    Kind.SETTING: (
        "CDCM-LEFT-SETTINGS",
        Severity.WARN,
        "what ALTER DATABASE … SET and ALTER ROLE … IN DATABASE … SET say is not copied",
        "Say the same on the target before the switch (`\\drds` in psql shows it).",
    ),
}


def leftover(found: Iterable[LeftBehind]) -> list[Finding]:
    """One finding for each kind of thing that does not move."""
    told = []
    for one in found:
        code, severity, happens, remedy = _ABOUT[one.kind]
        names = ", ".join(one.names) + (", …" if one.count > len(one.names) > 0 else "")
        cause = f"{happens} ({one.kind}: {one.count} found)"
        told.append(Finding(code, severity, names or str(one.kind), cause, remedy))
    return told


ACCEPTABLE: Collection[str] = frozenset(code for code, *_ in _ABOUT.values())

# What else the user may know better: it can go well, or be seen to.
WAIVABLE: Collection[str] = frozenset(
    {*ACCEPTABLE, "CDCM-SOURCE-MINOR", "CDCM-TARGET-TRIGGERS", "CDCM-TARGET-SPACE"}
)


def accepted(found: Iterable[Finding], reasons: Mapping[str, str]) -> list[Finding]:
    """The same findings, where what the user has accepted only warns, with the user's reason.

    A reason for what cannot be accepted is a finding of its own.

    Args:
        reasons: by code, one of `WAIVABLE`.
    """
    told = []
    for one in found:
        reason = reasons.get(one.code) if one.code in WAIVABLE else None
        if reason is None or one.severity is not Severity.REFUSE:
            told.append(one)
        else:
            cause = f"{one.cause}; accepted: {reason}"
            told.append(replace(one, severity=Severity.WARN, cause=cause, accepted=reason))
    told += [
        warn(
            "CDCM-ACCEPT-UNKNOWN",
            code,
            f"`accept` names {code}, which nothing can be accepted by",
            "Take it out of migration.yaml. These can be accepted: " + ", ".join(sorted(WAIVABLE)),
        )
        for code in sorted(reasons.keys() - WAIVABLE)
    ]
    return told
