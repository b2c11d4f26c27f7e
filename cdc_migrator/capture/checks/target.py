"""The target: not older than the source, empty, and nothing there acts on what is written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from cdc_migrator.capture.findings import Finding, refuse
from cdc_migrator.databases.postgres.catalog import ServerFacts
from cdc_migrator.model.tables import TableName


def server(
    facts: ServerFacts, source_version: int | None, may_set_role: bool, role: str = "…"
) -> list[Finding]:
    """The target server: not older than the source, and keys and triggers can be held off by
    `role`, which applies."""
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
    if not may_set_role:
        found.append(
            refuse(
                "CDCM-TARGET-REPLICA-ROLE",
                "target",
                f"on the target the role {role} may not set session_replication_role, so the "
                "target's triggers and foreign keys would act on what is loaded",
                f"GRANT SET ON PARAMETER session_replication_role TO {role}; or use a superuser.",
            )
        )
    return found


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
