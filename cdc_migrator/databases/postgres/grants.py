"""Which rights each role needs on a server, as single grants: to be printed, and to be looked at.

What is needed is decided here from what is there; one list serves `init --grants`, `check` and the
tests. Rights that come with owning an object, or with being a superuser, are not listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from cdc_migrator.model.logins import Logins, Role
from cdc_migrator.model.naming import CONTROL_SCHEMA
from cdc_migrator.model.tables import TableName

Part = Literal["source", "target"]
PARAMETER = "session_replication_role"
STATISTICS = "pg_read_all_stats"
SIGNALS = "pg_signal_backend"


class Kind(StrEnum):
    """What a right is on; ATTRIBUTE is the role's own, MEMBER is to be a member of another role."""

    ATTRIBUTE = "attribute"
    MEMBER = "member"
    DATABASE = "database"
    SCHEMA = "schema"
    TABLE = "table"
    SEQUENCE = "sequence"
    PARAMETER = "parameter"


@dataclass(frozen=True, slots=True)
class Grant:
    """One right that a role needs.

    Attributes:
        role: for which work. user: the server's role that does it.
        object: its name, unquoted; for MEMBER the role to be a member of.
        quoted: the same for SQL.
        privilege: such as SELECT, or SELECT (id, state) of a table's columns; for ATTRIBUTE the
            attribute; MEMBER for MEMBER.
        oid: of the object; 0 for what has none.
        lost: what is lost without it; empty: the migration cannot be.
    """

    role: Role
    user: str
    kind: Kind
    object: str
    quoted: str
    privilege: str
    oid: int = 0
    lost: str = ""

    @property
    def key(self) -> tuple[str, Kind, str, str]:
        """What makes it the same right, whatever it is needed for."""
        return (self.user, self.kind, self.object, self.privilege)

    def told(self) -> str:
        """The right in words: ``SELECT on table shop.orders``."""
        match self.kind:
            case Kind.ATTRIBUTE:
                return f"the attribute {self.privilege}"
            case Kind.MEMBER:
                return f"membership in {self.object}"
            case _:
                return f"{self.privilege} on {self.kind} {self.object}"

    def give(self) -> str:
        """The statement that grants it."""
        return self._statement("GRANT", "TO", self.privilege)

    def take(self) -> str:
        """The statement that takes it away."""
        return self._statement("REVOKE", "FROM", f"NO{self.privilege}")

    def _statement(self, verb: str, word: str, attribute: str) -> str:
        user = quote(self.user)
        match self.kind:
            case Kind.ATTRIBUTE:
                return f"ALTER ROLE {user} {attribute}"
            case Kind.MEMBER:
                return f"{verb} {self.quoted} {word} {user}"
            case _:
                kind = self.kind.upper()
                return f"{verb} {self.privilege} ON {kind} {self.quoted} {word} {user}"


@dataclass(frozen=True, slots=True)
class Owned:
    """An object, its name for SQL, and the role that it belongs to; `numbers`: a sequence."""

    name: str
    quoted: str
    oid: int
    owner: str
    numbers: bool = False


@dataclass(frozen=True, slots=True)
class There:
    """What there is on a server to have rights on.

    Attributes:
        schemas, tables: those of the migration, as far as they are there.
        roots: the partitioned tables that some of them are part of.
        secured: tables with row security, those included that have yet to be made.
        control, kept: the control schema, and its tables and sequences by name.
        roles, superusers: of the server.
    """

    database: Owned
    schemas: Mapping[str, Owned]
    tables: Mapping[TableName, Owned]
    secured: frozenset[TableName]
    control: Owned | None
    kept: Mapping[str, Owned]
    roles: frozenset[str]
    superusers: frozenset[str]
    roots: tuple[Owned, ...] = ()


def together(several: Sequence[Grant]) -> str:
    """One statement for several privileges of one role on one object."""
    between = " " if several[0].kind is Kind.ATTRIBUTE else ", "
    return replace(several[0], privilege=between.join(one.privilege for one in several)).give()


def quote(*name: str) -> str:
    """A name, with its schema if given, for SQL."""
    return sql.Identifier(*name).as_string(None)


def named(dsn: str) -> dict[Role, str]:
    """The roles that have a login of their own, each with its name on the server."""
    if not isinstance(dsn, Logins):
        return {}
    return {role: str(conninfo_to_dict(one)["user"]) for role, one in dsn.roles.items()}


def users(dsn: str, own: str) -> dict[Role, str]:
    """Who does the work of each role; `own` whatever nobody else is named for."""
    return dict.fromkeys(Role, own) | named(dsn)


_ROLES = "SELECT rolname::text, rolsuper FROM pg_roles"
_DATABASE = (
    "SELECT datname::text, oid::int8, pg_get_userbyid(datdba)::text FROM pg_database "
    "WHERE datname = current_database()"
)
_SCHEMAS = (
    "SELECT nspname::text, oid::int8, pg_get_userbyid(nspowner)::text FROM pg_namespace "
    "WHERE nspname = ANY (%s) ORDER BY 1"
)
_TABLES = (
    "SELECT n.nspname::text, c.relname::text, c.oid::int8, pg_get_userbyid(c.relowner)::text, "
    "c.relrowsecurity FROM unnest(%s::text[], %s::text[]) AS w(schema, name) "
    "JOIN pg_namespace n ON n.nspname = w.schema "
    "JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name "
    "AND c.relkind IN ('r', 'p') ORDER BY 1, 2"
)
_ROOTS = (
    "SELECT DISTINCT n.nspname::text, r.relname::text, r.oid::int8, "
    "pg_get_userbyid(r.relowner)::text FROM unnest(%s::oid[]) AS w(part) "
    "JOIN pg_class c ON c.oid = w.part AND c.relispartition "
    "JOIN pg_class r ON r.oid = pg_partition_root(c.oid) "
    "JOIN pg_namespace n ON n.oid = r.relnamespace ORDER BY 1, 2"
)
_KEPT = (
    "SELECT relname::text, oid::int8, pg_get_userbyid(relowner)::text, relkind = 'S' "
    "FROM pg_class WHERE (relkind = 'r' OR relkind = 'S' AND NOT starts_with(relname, 'side_')) "
    "AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) ORDER BY 1"
)


def look(
    conn: psycopg.Connection,
    tables: Sequence[TableName],
    secured: Iterable[TableName] = (),
) -> There:
    """What there is of these tables, and beside them. Changes nothing.

    Args:
        secured: tables that have row security on the server that they come from.
    """
    roles = conn.execute(_ROLES).fetchall()
    database = conn.execute(_DATABASE).fetchone()
    assert database is not None
    named = [*{one.schema for one in tables}, CONTROL_SCHEMA]
    schemas = {n: Owned(n, quote(n), *row) for n, *row in conn.execute(_SCHEMAS, (named,))}
    rows = conn.execute(_TABLES, ([t.schema for t in tables], [t.name for t in tables])).fetchall()
    control = schemas.pop(CONTROL_SCHEMA, None)
    return There(
        database=Owned(database[0], quote(database[0]), *database[1:]),
        schemas=schemas,
        tables={TableName(s, t): Owned(f"{s}.{t}", quote(s, t), *row) for s, t, *row, _ in rows},
        secured=frozenset({*secured, *(TableName(s, t) for s, t, *_, has in rows if has)}),
        control=control,
        kept={
            t: Owned(f"{CONTROL_SCHEMA}.{t}", quote(CONTROL_SCHEMA, t), *row)
            for t, *row in conn.execute(_KEPT, (CONTROL_SCHEMA,))
        },
        roles=frozenset(name for name, _ in roles),
        superusers=frozenset(name for name, strong in roles if strong),
        roots=tuple(
            Owned(f"{s}.{t}", quote(s, t), *row)
            for s, t, *row in conn.execute(_ROOTS, ([oid for _, _, oid, *_ in rows],))
        ),
    )


def needed(
    part: Part,
    who: Mapping[Role, str],
    there: There,
    kept: Mapping[Role, Mapping[str, Sequence[str]]],
) -> list[Grant]:
    """Every right that the work of one side of a migration needs on a server, each once.

    Args:
        part: whether the server is the one that is captured from, or the one that is applied to.
        who: as `users`.
        kept: the rights of each role on those tables of the control schema that are there.
    """
    found = [
        *_everybody(who, there),
        *(_source(who, there) if part == "source" else _target(who, there)),
        *control(who, there, kept),
    ]
    return each_once(one for one in found if one.user not in there.superusers)


def spared(one: Grant, lost: str) -> Grant:
    """The same right, without which no more is lost than that."""
    return one if one.lost else replace(one, lost=lost)


def each_once(grants: Iterable[Grant]) -> list[Grant]:
    """The same without repetitions; the first of each stays."""
    found: dict[object, Grant] = {}
    for one in grants:
        found.setdefault(one.key, one)
    return list(found.values())


def _everybody(who: Mapping[Role, str], there: There) -> Iterator[Grant]:
    for role, user in who.items():
        yield _attribute(role, user, "LOGIN")
        yield from _on(role, user, Kind.DATABASE, there.database, "CONNECT")
    yield _member(Role.MONITOR, who[Role.MONITOR], "pg_monitor", "lag, sessions and locks unseen")
    user = who[Role.CUTOVER]
    yield from _on(Role.CUTOVER, user, Kind.DATABASE, there.database, "CREATE")
    apart = set(who.values()) != {user}
    for name, lost in (
        (STATISTICS, "who is in the way of the fence is not told"),
        (SIGNALS, "sessions in the way of the fence, or left behind, cannot be ended"),
    ):
        # Sessions of its own roles it has to end, to be sure that nobody goes on.
        yield _member(Role.CUTOVER, user, name, "" if apart and name == SIGNALS else lost)


def _source(who: Mapping[Role, str], there: There) -> Iterator[Grant]:
    yield _attribute(Role.CAPTURE, who[Role.CAPTURE], "REPLICATION")
    yield from _owners(who[Role.CUTOVER], there)
    yield from _rows(Role.VERIFY, who[Role.VERIFY], there, ("SELECT",))
    yield from _wholes(who, there)


def _target(who: Mapping[Role, str], there: There) -> Iterator[Grant]:
    user = who[Role.APPLY]
    yield from _on(Role.APPLY, user, Kind.DATABASE, there.database, "TEMPORARY")
    lost = "foreign keys and triggers are made when the target is opened, and there is no way back"
    yield Grant(Role.APPLY, user, Kind.PARAMETER, PARAMETER, PARAMETER, "SET", lost=lost)
    yield from rows(who, there)
    # What is there already may be made, and be owned, by other tools.
    user = who[Role.CUTOVER]
    for one in _owners(user, there):
        yield spared(one, "its tables cannot be fenced, nor get their indexes")
    for schema in there.schemas.values():
        for one in _on(Role.CUTOVER, user, Kind.SCHEMA, schema, "USAGE", "CREATE"):
            yield spared(one, "nothing that is missing there can be made")


def rows(who: Mapping[Role, str], there: There) -> Iterator[Grant]:
    """What the roles of `who` need on tables that changes are applied to."""
    for role, privileges in _ON_ROWS.items():
        if role in who:
            yield from _rows(role, who[role], there, privileges)
    yield from _wholes(who, there)


def _wholes(who: Mapping[Role, str], there: There) -> Iterator[Grant]:
    """What rules about partitioned tables read; the rights on partitions do not count there."""
    for one in there.roots if Role.VERIFY in who else ():
        for grant in _on(Role.VERIFY, who[Role.VERIFY], Kind.TABLE, one, "SELECT"):
            yield spared(grant, "rules about it as a whole cannot be asked")


_ON_ROWS = {
    Role.APPLY: ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"),
    Role.VERIFY: ("SELECT",),
}


def _rows(role: Role, user: str, there: There, privileges: Sequence[str]) -> Iterator[Grant]:
    for schema in there.schemas.values():
        yield from _on(role, user, Kind.SCHEMA, schema, "USAGE")
    for table in there.tables.values():
        yield from _on(role, user, Kind.TABLE, table, *privileges)
    # Sessions fail at row security, so that no row is missed in silence.
    owners = {there.tables[name].owner for name in there.secured & there.tables.keys()}
    if owners - {user} or there.secured - there.tables.keys():
        yield _attribute(role, user, "BYPASSRLS")


def control(
    who: Mapping[Role, str], there: There, kept: Mapping[Role, Mapping[str, Sequence[str]]]
) -> Iterator[Grant]:
    """What the roles of `who` need in the control schema; `kept` as in `needed`."""
    for role, rights in kept.items():
        if role not in who:
            continue
        if there.control is not None:
            yield from _on(role, who[role], Kind.SCHEMA, there.control, "USAGE")
        for name, privileges in rights.items():
            one = there.kept[name]
            kind = Kind.SEQUENCE if one.numbers else Kind.TABLE
            yield from _on(role, who[role], kind, one, *privileges)


def _owners(user: str, there: There) -> Iterator[Grant]:
    for owner in sorted({one.owner for one in there.tables.values()} - {user}):
        yield _member(Role.CUTOVER, user, owner)


def _attribute(role: Role, user: str, name: str) -> Grant:
    return Grant(role, user, Kind.ATTRIBUTE, user, quote(user), name)


def _member(role: Role, user: str, of: str, lost: str = "") -> Grant:
    return Grant(role, user, Kind.MEMBER, of, quote(of), "MEMBER", lost=lost)


def _on(role: Role, user: str, kind: Kind, one: Owned, *privileges: str) -> Iterator[Grant]:
    if one.owner != user:
        for privilege in privileges:
            yield Grant(role, user, kind, one.name, one.quoted, privilege, one.oid)


# A managed service may let a role replicate by membership in one of its own.
_HELD = """
SELECT CASE w.kind
    WHEN 'attribute' THEN (
        SELECT rolsuper OR CASE w.privilege
            WHEN 'LOGIN' THEN rolcanlogin
            WHEN 'BYPASSRLS' THEN rolbypassrls
            ELSE rolreplication OR EXISTS (
                SELECT FROM pg_roles m WHERE m.rolname = 'rds_replication'
                AND pg_has_role(w.who, m.oid, 'USAGE'))
        END FROM pg_roles WHERE rolname = w.who)
    WHEN 'member' THEN pg_has_role(w.who, w.object::name, 'USAGE')
    WHEN 'database' THEN has_database_privilege(w.who, w.oid, w.privilege)
    WHEN 'schema' THEN has_schema_privilege(w.who, w.oid, w.privilege)
    WHEN 'table' THEN CASE split_part(w.privilege, ' ', 2)
        WHEN '' THEN has_table_privilege(w.who, w.oid, w.privilege)
        ELSE (SELECT bool_and(has_column_privilege(w.who, w.oid, a.attnum, 'SELECT'))
              FROM pg_attribute a WHERE a.attrelid = w.oid
              AND a.attname = ANY (string_to_array(substring(w.privilege FROM '[(](.*)[)]'), ', ')))
        END
    WHEN 'sequence' THEN has_sequence_privilege(w.who, w.oid, w.privilege)
    WHEN 'parameter' THEN has_parameter_privilege(w.who, w.object, w.privilege)
END
FROM unnest(%s::name[], %s::text[], %s::text[], %s::text[], %s::oid[])
    WITH ORDINALITY AS w(who, kind, object, privilege, oid, place)
ORDER BY w.place
"""


def missing(conn: psycopg.Connection, grants: Sequence[Grant]) -> list[Grant]:
    """Those of these rights that are not held now; every user and object must be there."""
    rows = conn.execute(
        _HELD,
        (
            [one.user for one in grants],
            [one.kind.value for one in grants],
            [one.object for one in grants],
            [one.privilege for one in grants],
            [one.oid for one in grants],
        ),
    ).fetchall()
    return [one for one, (held,) in zip(grants, rows, strict=True) if held is False]
