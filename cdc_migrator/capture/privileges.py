"""What each role lacks on each object of both servers: a finding for each, with its GRANT.

Looked up in the catalog: no session is opened as the roles themselves. What only a trial can tell
(replication, the replica role: managed services grant them in their own ways) `preflight` tries.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import psycopg

from cdc_migrator.capture.findings import Finding, Severity
from cdc_migrator.control import access
from cdc_migrator.databases.postgres import grants
from cdc_migrator.databases.postgres.grants import Grant, Kind, Part
from cdc_migrator.model.logins import Role
from cdc_migrator.model.tables import TableName

_CODES = {
    Role.CAPTURE: "CDCM-GRANT-CAPTURE",
    Role.APPLY: "CDCM-GRANT-APPLY",
    Role.VERIFY: "CDCM-GRANT-VERIFY",
    Role.MONITOR: "CDCM-GRANT-MONITOR",
    Role.CUTOVER: "CDCM-GRANT-CUTOVER",
}
_OWNER = (
    "ALTER TABLE … OWNER TO a role that is no superuser, and GRANT that one: a member of a "
    "superuser can become it."
)
_BACK = "there would be no way back"
# Said of by those who tried.
_TRIED = {(Kind.PARAMETER, "SET"), (Kind.ATTRIBUTE, "REPLICATION")}


def wanted(
    conn: psycopg.Connection,
    dsn: str,
    part: Part,
    tables: Sequence[TableName],
    way_back: bool = True,
    secured: Iterable[TableName] = (),
) -> list[Grant]:
    """Every right that the migration's roles need on the server behind `conn`.

    Args:
        dsn: by which the server is reached, with its roles.
        tables: those of the migration; what is not there yet needs no rights.
        way_back: also what only the way back needs, without which there would be none.
        secured: see `grants.look`.
    """
    there = grants.look(conn, tables, secured)
    who = grants.users(dsn, conn.info.user)
    kept = access.kept(there.kept)
    found = grants.needed(part, who, there, kept)
    if way_back:
        other: Part = "target" if part == "source" else "source"
        # Nothing is made on the source, so its owner needs no more than on the way there.
        back = [one for one in grants.needed(other, who, there, kept) if one.role != Role.CUTOVER]
        found += [
            replace(one, lost=_BACK) if one.kind is Kind.PARAMETER else grants.spared(one, _BACK)
            for one in back
        ]
    return grants.each_once(found)


def look(
    conn: psycopg.Connection,
    dsn: str,
    part: Part,
    tables: Sequence[TableName],
    way_back: bool = False,
    secured: Iterable[TableName] = (),
) -> list[Finding]:
    """What is missing of `wanted`; rights on one object that one role lacks are one finding."""
    all_wanted = wanted(conn, dsn, part, tables, way_back, secured)
    there = grants.look(conn, ())
    gone = {one.user: one.role for one in all_wanted if one.user not in there.roles}
    found = [_no_role(part, role, user) for user, role in gone.items()]
    lacking = [
        one
        for one in grants.missing(conn, [one for one in all_wanted if one.user not in gone])
        if one.lost == _BACK or (one.kind, one.privilege) not in _TRIED
    ]
    return found + list(_findings(part, lacking, there.superusers))


def _no_role(part: Part, role: Role, user: str) -> Finding:
    return Finding(
        "CDCM-ROLE-MISSING",
        Severity.REFUSE,
        user,
        f"the {part} has no role {user}, which is to do the work of {role}",
        "`cdc-migrator init --grants` prints the SQL that makes it and grants what it needs.",
    )


def _findings(
    part: Part, lacking: Sequence[Grant], superusers: Collection[str]
) -> Iterator[Finding]:
    def on(one: Grant) -> tuple[str, ...]:
        return (one.role, one.user, one.kind, one.object, one.lost)

    for _, group in groupby(sorted(lacking, key=on), key=on):
        several = list(group)
        first = several[0]
        yield Finding(
            _CODES[first.role],
            Severity.WARN if first.lost else Severity.REFUSE,
            first.object,
            f"on the {part} the role {first.user}, which does the work of {first.role}, lacks "
            + ", ".join(one.told() for one in several)
            + (f": {first.lost}" if first.lost else ""),
            _OWNER
            if first.kind is Kind.MEMBER and first.object in superusers
            else grants.together(several) + ";",
        )
