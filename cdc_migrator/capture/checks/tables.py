"""The tables that move: which the patterns choose, how rows are told apart, what columns hold."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from cdc_migrator.capture.findings import Finding, inform, refuse, warn
from cdc_migrator.databases.postgres import side
from cdc_migrator.databases.postgres.catalog import IdentityProblem
from cdc_migrator.model.tables import ReplicaIdentity, Table, TableName


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
                refuse(
                    "CDCM-TABLES-MISSING",
                    pattern,
                    f"no table of the source matches {pattern!r} (names are schema.table)",
                    f"{hint} Correct `tables.include`.",
                )
            )
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in names):
            found.append(
                warn(
                    "CDCM-TABLES-EXCLUDE",
                    pattern,
                    f"no table of the source matches {pattern!r}, which is to be excluded",
                    "Correct or remove it in `tables.exclude`.",
                )
            )
    if not there and not found:
        found.append(
            refuse(
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
        refuse(
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
                warn(
                    "CDCM-TYPE-WHOLE-ROWS",
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
                inform(
                    "CDCM-TYPE-BESIDE",
                    name,
                    f"a trigger on {name} will send the text {when} beside the connector's "
                    f"events: {told}",
                    "Nothing; `cdc-migrator abort` and `finish` remove the trigger.",
                )
            )
    return found


def row_security(tables: Sequence[Table], active: Collection[TableName]) -> list[Finding]:
    """Tables whose policies hide rows from the source's role, so that reading them is refused."""
    return [
        refuse(
            "CDCM-SOURCE-ROW-SECURITY",
            str(table.name),
            f"the policies of {table.name} apply to the source's role: it may not see every row, "
            "and what it does not see cannot be copied or compared",
            "ALTER ROLE … BYPASSRLS on the source; or use the table's owner, where its row "
            "security is not forced.",
        )
        for table in tables
        if table.name in active
    ]


def changing_keys(tables: Sequence[Table], changing: Collection[TableName]) -> list[Finding]:
    """Tables with long values whose key is meant to change.

    Args:
        changing: those whose key others follow, and that have values stored out of line.
    """
    return [
        inform(
            "CDCM-TABLE-KEY-CHANGES",
            str(table.name),
            f"the key of {table.name} is meant to change (ON UPDATE of a foreign key), and an "
            "event that changes it leaves long values out: the target keeps its own. Where the "
            "connector dies between the two events of such a change, the table is read again "
            "from the source",
            "Nothing; where it is too large to be read again (`apply.reread_bytes`), REPLICA "
            "IDENTITY FULL has the events hold all values.",
        )
        for table in tables
        if table.name in changing and table.replica_identity is not ReplicaIdentity.FULL
    ]


def alike(tables: Sequence[Table]) -> list[Finding]:
    """Tables that Kafka, or the connector, would give the same topic, had each one of its own.

    The connector writes ``_`` for what a topic's name cannot have; to Kafka's metrics ``.`` and
    ``_`` are one.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for table in tables:
        groups[re.sub(r"[^A-Za-z0-9-]", "_", str(table.name))].append(str(table.name))
    return [
        inform(
            "CDCM-TABLE-TOPICS-ALIKE",
            ", ".join(names),
            f"as topics the names {', '.join(names)} would be the same. This migration's changes "
            "all travel in one topic, where each event names its table, and stay apart",
            "Nothing; a connector of your own that writes a topic for each table would mix them.",
        )
        for names in groups.values()
        if len(names) > 1
    ]
