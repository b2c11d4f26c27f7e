"""`init --grants`: the SQL that makes each server's roles and grants what they need, no more.

Printed, never run: it is for who administers the servers. It can be run again, and says what is
lost where a managed service does not give a right.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import printer
from cdc_migrator.config.database import Database
from cdc_migrator.config.roles import Login, Roles
from cdc_migrator.model.logins import Role

if TYPE_CHECKING:
    import psycopg

    from cdc_migrator.databases.postgres.grants import Grant, Part
    from cdc_migrator.model.mapping import Wanted
    from cdc_migrator.model.tables import TableName


class Managed(StrEnum):
    """Who runs the servers."""

    NONE = "none"
    RDS = "rds"
    CLOUDSQL = "cloudsql"
    AZURE = "azure"


_DOES = {
    Role.CAPTURE: "is the connector, and makes and drops the replication slot",
    Role.APPLY: "writes rows and the service's own state, and markers on the source",
    Role.VERIFY: "reads rows, to copy and to compare them; its sessions are read-only",
    Role.MONITOR: "measures server and migration; sees no rows",
    Role.CUTOVER: "owns the tables, or is a member of their owners",
}
_AS = {
    Managed.NONE: "a superuser",
    Managed.RDS: "the master user (a member of rds_superuser)",
    Managed.CLOUDSQL: "postgres (a member of cloudsqlsuperuser)",
    Managed.AZURE: "the administrator (a member of azure_pg_admin)",
}
_LOST = {
    Managed.NONE: [],
    Managed.RDS: [
        "Sessions of rdsadmin cannot be ended: where one is in the way of the fence, wait for it.",
    ],
    Managed.CLOUDSQL: [
        "Nobody may set session_replication_role there. As the target, foreign keys and triggers "
        "are made when it is opened; on either side, there is no way back: say so in "
        "cutover.without_way_back.",
    ],
    Managed.AZURE: [
        "BYPASSRLS can be granted from PostgreSQL 16 on; before, tables with row security can only "
        "be read by their owner: leave verify and apply out of `roles` there.",
    ],
}


@dataclass(frozen=True, slots=True)
class Script:
    """The SQL of one server.

    Attributes:
        made: roles that are not there yet.
        grants: what is needed; `held`: keys of those that are held already.
        superusers: of the server.
    """

    part: Part
    server: str
    database: str
    managed: Managed
    who: dict[Role, str]
    made: tuple[str, ...]
    grants: tuple[Grant, ...]
    held: frozenset[Any]
    superusers: frozenset[str] = frozenset()

    def give(self, one: Grant) -> str:
        """The statement that grants a right on this server."""
        from cdc_migrator.databases.postgres.grants import quote

        if one.privilege == "REPLICATION" and self.managed is Managed.RDS:
            return f"GRANT rds_replication TO {quote(one.user)}"
        return one.give()

    def as_dict(self) -> dict[str, Any]:
        """The machine-readable form."""
        return {
            "server": self.part,
            "database": self.database,
            "managed": self.managed.value,
            "run_as": _AS[self.managed],
            "roles": [
                {"role": role.value, "user": user, "there": user not in self.made}
                for role, user in self.who.items()
            ],
            "grants": [
                {
                    "role": one.role.value,
                    "user": one.user,
                    "kind": one.kind.value,
                    "object": one.object,
                    "privilege": one.privilege,
                    "held": one.key in self.held,
                    "statement": self.give(one) + ";",
                    "lost_without": one.lost or "the migration",
                }
                for one in self.grants
            ],
            "settings": list(self._settings()),
            "lost": _LOST[self.managed],
        }

    def _settings(self) -> Iterator[str]:
        from cdc_migrator.databases.postgres.grants import quote

        user = self.who[Role.VERIFY]
        if user != self.who[Role.CUTOVER]:
            yield (
                f"ALTER ROLE {quote(user)} IN DATABASE {quote(self.database)} "
                "SET default_transaction_read_only = on;"
            )

    def lines(self) -> Iterator[str]:
        """The script, line by line."""
        yield f"-- The {self.part}: {self.server}"
        yield f"-- Run it in this database as {_AS[self.managed]}; it can be run again."
        yield from (f"-- {text}" for text in _LOST[self.managed])
        yield from self._roles()
        for role in Role:
            own = [one for one in self.grants if one.role is role]
            if own:
                yield ""
                yield f"-- {role}: {own[0].user} {_DOES[role]}"
            for first in dict.fromkeys((one.kind, one.object, one.lost) for one in own):
                several = [one for one in own if (one.kind, one.object, one.lost) == first]
                if first[2]:
                    yield f"-- without: {first[2]}"
                if first[0] == "member" and first[1] in self.superusers:
                    yield f"-- {first[1]} owns tables and is a superuser, which a member of it can"
                    yield "-- become. Give them to a role that is none, and print this again."
                yield from self._statements(several)
        if settings_ := list(self._settings()):
            yield ""
            yield from settings_

    def _statements(self, several: Sequence[Grant]) -> Iterator[str]:
        from cdc_migrator.databases.postgres.grants import Kind, together

        if several[0].kind is Kind.ATTRIBUTE:  # which a managed service gives in its own way
            yield from (f"{self.give(one)};" for one in several)
        else:
            yield f"{together(several)};"

    def _roles(self) -> Iterator[str]:
        from cdc_migrator.databases.postgres.grants import quote

        for user in self.made:
            name = user.replace("'", "''")
            yield ""
            yield "DO $$ BEGIN"
            yield f"    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') THEN"
            yield f"        CREATE ROLE {quote(user)} LOGIN; -- then, in psql: \\password {user}"
            yield "    END IF;"
            yield "END $$;"


def print_grants(
    ctx: typer.Context,
    databases: dict[Part, Database],
    include: Sequence[str] | None,
    exclude: Sequence[str],
    managed: Managed,
    way_back: bool,
    wanted: Sequence[Wanted] = (),
) -> None:
    """Look at both servers and print what each needs. Raises MigratorError: one does not answer.

    Args:
        wanted: what is said of tables that go to others than those of their names.
    """
    from cdc_migrator.databases.postgres import grants
    from cdc_migrator.databases.postgres.catalog import read_tables
    from cdc_migrator.model.destinations import destinations

    proposed = {part: _with_roles(one) for part, one in databases.items()}
    with _connect("source", databases["source"]) as source:
        moving = read_tables(source, include, exclude)
        tables = [table.name for table in moving]
        secured = grants.look(source, tables).secured
        scripts = [_script(source, "source", proposed["source"], tables, managed, way_back)]
    going = destinations(wanted, moving)
    there = {one for several in going.values() for one in several}
    theirs = [*(one for one in tables if one not in going), *sorted(there)]
    with _connect("target", databases["target"]) as target:
        scripts.append(
            _script(target, "target", proposed["target"], theirs, managed, way_back, secured)
        )
    out = printer(ctx)
    if not out.for_people:
        out.data({"servers": [one.as_dict() for one in scripts]})
        return
    for one in scripts:
        sys.stdout.write("\n".join([*one.lines(), "", ""]))
    if any(proposed[part] is not databases[part] for part in databases):
        out.say("then name these roles in migration.yaml, for `source` and for `target`:")
        out.say("\n".join(_snippet(proposed["source"])))
    out.next("cdc-migrator check", "does every role have what it needs?")


def configured(ctx: typer.Context) -> tuple[dict[Part, Database], Any]:
    """Both databases of the configuration in force, and the settings."""
    found = settings(ctx)
    return {"source": found.source, "target": found.target}, found


def _with_roles(database: Database) -> Database:
    """With names for the roles where the configuration has none at all."""
    if database.roles.named():
        return database
    apart = [role for role in Role if role is not Role.CUTOVER]
    roles = Roles(**{role.value: Login(user=f"cdcm_{role}") for role in apart})
    return database.model_copy(update={"roles": roles})


def _snippet(database: Database) -> Iterator[str]:
    yield "  roles:"
    for role, login in database.roles.named().items():
        yield f"    {role}: {{user: {login.user}, password_file: …}}"


def _connect(part: Part, database: Database) -> psycopg.Connection:
    from cdc_migrator.databases.postgres.connect import connect

    # The roles may not be there yet.
    dsn = database.own_dsn()
    return connect(dsn, application_name="cdc-migrator init", side=part, read_only=True)


def _script(
    conn: psycopg.Connection,
    part: Part,
    database: Database,
    tables: Sequence[TableName],
    managed: Managed,
    way_back: bool,
    secured: Iterable[TableName] = (),
) -> Script:
    from cdc_migrator.capture import privileges
    from cdc_migrator.databases.postgres import grants
    from cdc_migrator.databases.postgres.connect import describe_dsn

    dsn = database.dsn_with_password()
    there = grants.look(conn, ())
    wanted = privileges.wanted(conn, dsn, part, tables, way_back, secured)
    known = [one for one in wanted if one.user in there.roles]
    lacking = {one.key for one in grants.missing(conn, known)}
    who = grants.users(dsn, conn.info.user)
    return Script(
        part=part,
        server=describe_dsn(dsn),
        database=there.database.name,
        managed=managed,
        who=who,
        made=tuple(dict.fromkeys(user for user in who.values() if user not in there.roles)),
        grants=tuple(wanted),
        held=frozenset(one.key for one in known) - lacking,
        superusers=there.superusers,
    )
