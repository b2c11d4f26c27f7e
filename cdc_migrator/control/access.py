"""Who may do what in the control schema, and on the target's tables: given by their owner.

A role has no more than its work needs: nobody but the owner changes what is in the journal, and
who only measures sees neither the fence's token nor a value of a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import psycopg

from cdc_migrator.databases.postgres import grants
from cdc_migrator.databases.postgres.grants import Grant, Kind
from cdc_migrator.model.logins import Role
from cdc_migrator.model.tables import TableName

LOCK = 0x43444D31  # one who makes or opens the control schema at a time ("CDM1")
_READ = ("SELECT",)
_KEEP = ("SELECT", "INSERT", "UPDATE", "DELETE")
_ADD = ("SELECT", "INSERT")
# The parts of a source; all other tables are a target's.
_OF_SOURCE: Mapping[str, Mapping[Role, Sequence[str]]] = {
    "captured": {},
    "marker": {Role.APPLY: ("SELECT", "INSERT", "DELETE")},
    "side": {Role.APPLY: _READ},
    "heartbeat": {Role.CAPTURE: ("SELECT", "UPDATE")},
    "cutover_copy": {},
}
_OF_BOTH: Mapping[str, Mapping[Role, Sequence[str]]] = {
    # Who may read it works for a migration (parts/privileges.sql).
    "schema_version": {Role.APPLY: _READ, Role.CAPTURE: _READ, Role.VERIFY: _READ},
    "route": {},
}
# Rows on their way are in there, and are thrown away.
_SIDE_TABLE: Mapping[Role, Sequence[str]] = {Role.APPLY: ("DELETE", "TRUNCATE")}


def _columns(*names: str) -> Sequence[str]:
    """To see these columns alone."""
    return (f"SELECT ({', '.join(names)})",)


_TABLE = ("source_schema", "source_table")
_OF_TARGET: Mapping[str, Mapping[Role, Sequence[str]]] = {
    "fence": {Role.APPLY: _ADD},
    "journal": {Role.APPLY: _ADD, Role.MONITOR: _READ},
    # Read under the snapshot in which the rows are.
    "reconcile_map": {
        Role.APPLY: _KEEP,
        Role.VERIFY: _READ,
        Role.MONITOR: _columns("id", *_TABLE, "chunks", "signature", "marked"),
    },
    "reconcile_mark": {Role.APPLY: _KEEP, Role.MONITOR: _READ, Role.VERIFY: _READ},
    # These hold keys, bounds of keys, or whole rows, which who only measures must not see.
    "dead_letter": {Role.APPLY: _KEEP, Role.MONITOR: _columns("id", "parked_key", "seen_at")},
    "parked_key": {
        Role.APPLY: _KEEP,
        Role.MONITOR: _columns("id", *_TABLE, "chain", "state", "left_out", "parked_at", "tries"),
    },
    "difference": {
        Role.APPLY: _KEEP,
        Role.MONITOR: _columns("id", *_TABLE, "kind", "state", "first_seen", "last_seen"),
    },
    "repair": {Role.APPLY: _KEEP, Role.MONITOR: _columns("id", *_TABLE, "action", "at")},
    "reconcile_chunk": {Role.APPLY: _KEEP},
    "rebuild": {Role.APPLY: _KEEP},
    "rebuild_range": {Role.APPLY: _KEEP},
    "request": {Role.APPLY: _KEEP},
}
# Of which a number is asked for by itself, or the last one that was given.
_NUMBERS: Mapping[str, Mapping[Role, Sequence[str]]] = {
    "parked_key_id_seq": {Role.APPLY: ("USAGE",)},
    "reconcile_mark_id_seq": {Role.APPLY: ("SELECT",)},
}
_ELSE: Mapping[Role, Sequence[str]] = {Role.APPLY: _KEEP, Role.MONITOR: _READ}


def kept(tables: Iterable[str]) -> dict[Role, dict[str, Sequence[str]]]:
    """The rights of each role on these tables and sequences of the control schema."""
    found: dict[Role, dict[str, Sequence[str]]] = {role: {} for role in _WORKING}
    for table in sorted(tables):
        for role, privileges in _rights(table).items():
            found[role][table] = privileges
    return found


# Whose sessions ask for something in the control schema, be it whether that is there.
_WORKING = (Role.CAPTURE, Role.APPLY, Role.VERIFY, Role.MONITOR)


def _rights(table: str) -> Mapping[Role, Sequence[str]]:
    if table.startswith("side_"):
        return _SIDE_TABLE
    if table.endswith("_seq"):
        return _NUMBERS.get(table, {})
    of_server = _OF_SOURCE.get(table, _OF_BOTH.get(table))
    if of_server is not None:
        return {**of_server, Role.MONITOR: _READ}
    return _OF_TARGET.get(table, _ELSE)


def give(conn: psycopg.Connection, named: Mapping[Role, str]) -> None:
    """Give these roles what they lack in the control schema; what cannot be given is left.

    Args:
        conn: a session of the schema's owner. named: roles with a login of their own.
    """
    there = grants.look(conn, ())
    _give(conn, named, grants.control(_known(named, there), there, kept(there.kept)))


def give_rows(
    conn: psycopg.Connection,
    named: Mapping[Role, str],
    tables: Sequence[TableName],
    roles: Sequence[Role] = (Role.APPLY, Role.VERIFY),
) -> None:
    """Give these roles what they lack on tables that changes are applied to, as `give`."""
    there = grants.look(conn, tables)
    wanted = {role: user for role, user in _known(named, there).items() if role in roles}
    _give(conn, named, grants.rows(wanted, there))


def _known(named: Mapping[Role, str], there: grants.There) -> dict[Role, str]:
    return {role: user for role, user in named.items() if user in there.roles}


_PLAIN = (Kind.SCHEMA, Kind.TABLE, Kind.SEQUENCE)


def _give(conn: psycopg.Connection, named: Mapping[Role, str], wanted: Iterable[Grant]) -> None:
    plain = [one for one in wanted if one.kind in _PLAIN]
    if not named or not plain:
        return
    with conn.transaction():
        # Two that grant on one object at the same time would fail.
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        for one in grants.missing(conn, plain):
            # An object of somebody else's: `check` names what is missing.
            with suppress(psycopg.errors.InsufficientPrivilege), conn.transaction():
                conn.execute(one.give().encode())
