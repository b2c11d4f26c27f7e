"""The target: not older than the source, empty, and nothing there acts on what is written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from cdc_migrator.capture.findings import Finding, refuse, warn
from cdc_migrator.databases.postgres.catalog import ServerFacts
from cdc_migrator.model.tables import TableName
from cdc_migrator.model.wording import few

_REPLICA_ROLE = "CDCM-TARGET-REPLICA-ROLE"


def server(facts: ServerFacts, source_version: int | None) -> list[Finding]:
    """The target server: not older than the source, and no standby."""
    found = []
    if source_version is not None and facts.version_num // 10000 < source_version // 10000:
        found.append(
            refuse(
                "CDCM-TARGET-VERSION",
                "target",
                f"the target runs PostgreSQL {facts.version}, older than the source",
                "Use a target of the source's version or a newer one.",
            )
        )
    if facts.in_recovery:
        found.append(
            refuse(
                "CDCM-TARGET-STANDBY",
                "target",
                "the target is a standby: nothing can be written there",
                "Name the primary in the target's connection string.",
            )
        )
    return found


def acting(role: str, now: bool, there: Sequence[str]) -> list[Finding]:
    """Where `role`, which applies, may not hold off foreign keys and triggers.

    Args:
        now: the migration was begun when it might. there: what acts on its tables, in words.
    """
    remedy = f"GRANT SET ON PARAMETER session_replication_role TO {role}; or use a superuser."
    may_not = f"on the target the role {role} may not set session_replication_role"
    if now:
        why = f"{may_not} any more, so its triggers and foreign keys would act on what is applied"
        return [refuse(_REPLICA_ROLE, "target", why, remedy)]
    if there:
        return [
            refuse(
                "CDCM-TARGET-ACTS",
                "target",
                f"{may_not}, and there are {few(there)}, which would act on what is loaded",
                f"Drop them there: the cutover makes what the source has. Or {remedy}",
            )
        ]
    why = (
        f"{may_not}: foreign keys, triggers and rules are made when the target is opened, and there"
        " can be no way back"
    )
    return [warn(_REPLICA_ROLE, "target", why, remedy)]


def filled(names: Iterable[TableName]) -> list[Finding]:
    """Target tables that hold rows before the load."""
    return [
        refuse(
            "CDCM-TARGET-NOT-EMPTY",
            str(name),
            f"the target's table {name} holds rows that this migration has not loaded",
            "Empty or drop it, or use another target.",
        )
        for name in names
    ]


def triggers(
    tables: Sequence[TableName],
    there: Mapping[TableName, tuple[str, ...]],
    coming: Mapping[TableName, tuple[str, ...]],
) -> list[Finding]:
    """Triggers and rules that will act on what is loaded and applied.

    Args:
        there: on the target, by table. coming: on the source, from where the schema brings them.
    """
    found = []
    for table in tables:
        names = list(dict.fromkeys((*there.get(table, ()), *coming.get(table, ()))))
        if names:
            brought = "" if table in there else ", which come from the source with its schema,"
            found.append(
                refuse(
                    "CDCM-TARGET-TRIGGERS",
                    str(table),
                    f"{', '.join(names)} on the target's {table}{brought} would act on every row "
                    "that is loaded and applied a second time: ENABLE ALWAYS or REPLICA fires for "
                    "a session that replicates, too",
                    f"ALTER TABLE {table} ENABLE TRIGGER (or RULE) … without ALWAYS or REPLICA, "
                    "on both sides until the switch; or `accept` it with the reason why it does "
                    "no harm.",
                )
            )
    return found


def row_security(
    tables: Iterable[TableName],
    active: Collection[TableName],
    forced: Collection[TableName],
    bypasses: bool,
) -> list[Finding]:
    """Tables whose policies would hide rows from, or refuse them to, the target's role.

    Args:
        active: the target's tables whose policies apply to that role now.
        forced: the source's tables whose policies apply to their owner as well.
        bypasses: no policy applies to that role.
    """
    return [
        refuse(
            "CDCM-TARGET-ROW-SECURITY",
            str(name),
            f"the policies of {name} apply to the target's role: rows would be refused, and others "
            "not be seen when they are changed or compared",
            "ALTER ROLE … BYPASSRLS on the target; or ALTER TABLE … NO FORCE ROW LEVEL SECURITY, "
            "where the role owns the table.",
        )
        for name in tables
        if name in active or (name in forced and not bypasses)
    ]
