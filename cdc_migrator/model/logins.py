"""With which login a piece of work is done on a database: one with no more rights than it needs.

A connection string is passed on as it always was. Who opens a session asks for the role of its
work with `login`; where nobody was named for that, it is done as `Role.CUTOVER`, to whom the
tables belong.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Role(StrEnum):
    """Who works on a database.

    CAPTURE: the connector, and whoever makes and drops the slot.
    APPLY: writes rows, and what the migration keeps in its control schema while it runs.
    VERIFY: reads rows, to copy and to compare them; writes nothing.
    MONITOR: reads how the servers and the migration are; no rows.
    CUTOVER: owns the tables, or is a member of their owners: schema, publication, triggers, fence,
        sequences. What nobody else is named for is done as this one.
    """

    CAPTURE = "capture"
    APPLY = "apply"
    VERIFY = "verify"
    MONITOR = "monitor"
    CUTOVER = "cutover"


class Logins(str):
    """The connection string of `Role.CUTOVER`, which knows those of the other roles as well."""

    roles: Mapping[Role, str]

    def __new__(cls, own: str, roles: Mapping[Role, str]) -> Logins:
        made = super().__new__(cls, own)
        made.roles = dict(roles)
        return made


def login(dsn: str, role: Role) -> str:
    """The complete connection string with which this role's work is done."""
    own = str.__str__(dsn)
    return dsn.roles.get(role, own) if isinstance(dsn, Logins) else own
