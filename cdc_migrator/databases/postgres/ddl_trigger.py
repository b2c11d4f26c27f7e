"""Event triggers that tell of changes of captured tables: make, look at and remove them.

They fire for everybody, whatever `session_replication_role` says, and write a `ddl` marker into the
transaction that changes the schema, behind the change. Only a superuser may make one (managed
servers have a role for it); without them changes are found by looking.

* At the end of a command each captured table that it touched is described anew.
* A table that is dropped is named: with it its description goes.
* A partition that is detached is in no list of what the command touched: it is known by its row in
  the catalog, which the transaction has written.
* A rewrite of a table that changes its rows, or may, sends no row events: it is named, too.
"""

from __future__ import annotations

import re
from importlib.resources import files

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres.describe import query

PREFIX = "cdc_migrator_ddl_"

# What may change a table that is captured. Others cost nothing.
_CHANGES = "ALTER TABLE, ALTER TYPE, ALTER DOMAIN, ALTER SCHEMA, ALTER INDEX, CREATE INDEX"
_DROPS = (
    "DROP TABLE, DROP SCHEMA, DROP OWNED, DROP TYPE, DROP DOMAIN, DROP EXTENSION, DROP FUNCTION"
)
_TRIGGERS = {
    f"{PREFIX}end": ("ddl_command_end", _CHANGES),
    f"{PREFIX}drop": ("sql_drop", _DROPS),
    f"{PREFIX}rewrite": ("table_rewrite", None),
}
_THERE = """
SELECT e.evtname::text FROM pg_event_trigger e
WHERE e.evtname = ANY (%s) AND e.evtenabled = 'A'
AND e.evtfoid = to_regprocedure('cdc_migrator.ddl_told()')
"""

_BODY = re.compile(r"\$([a-z]+)\$(.*?)\$\1\$", re.DOTALL)
_SAME = """
SELECT count(*) FROM pg_proc
WHERE pronamespace = to_regnamespace('cdc_migrator') AND prosrc = ANY (%s)
"""


def up(conn: psycopg.Connection) -> bool:
    """Whether every one of them is there and fires always."""
    rows = conn.execute(_THERE, (list(_TRIGGERS),)).fetchall()
    return len(rows) == len(_TRIGGERS)


def up_to_date(conn: psycopg.Connection) -> bool:
    """Whether their functions are this release's."""
    bodies = [body for _, body in _BODY.findall(_functions().decode())]
    row = conn.execute(_SAME, (bodies,)).fetchone()
    return row == (len(bodies),)


def may_make(conn: psycopg.Connection) -> bool:
    """Whether this role can make them; tried, and taken back."""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(
                "CREATE FUNCTION pg_temp.cdc_migrator_probe() RETURNS event_trigger "
                "LANGUAGE plpgsql AS $$BEGIN END$$"
            )
            conn.execute(
                "CREATE EVENT TRIGGER cdc_migrator_probe ON ddl_command_end "
                "WHEN TAG IN ('ALTER CONVERSION') EXECUTE FUNCTION pg_temp.cdc_migrator_probe()"
            )
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


def make(conn: psycopg.Connection) -> None:
    """Make them, or bring them up to date.

    Raises psycopg.errors.InsufficientPrivilege where the role may not; nothing is made then.
    """
    with conn.transaction():
        conn.execute(_functions())
        for name, (event, tags) in _TRIGGERS.items():
            trigger = sql.Identifier(name)
            conn.execute(sql.SQL("DROP EVENT TRIGGER IF EXISTS {}").format(trigger))
            conn.execute(
                sql.SQL("CREATE EVENT TRIGGER {} ON {} {} EXECUTE FUNCTION {}()").format(
                    trigger,
                    sql.SQL(event),
                    _when(tags),
                    sql.Identifier("cdc_migrator", "ddl_told"),
                )
            )
            conn.execute(sql.SQL("ALTER EVENT TRIGGER {} ENABLE ALWAYS").format(trigger))


def remove(conn: psycopg.Connection) -> bool:
    """Remove them with their functions; whether there were any."""
    rows = conn.execute(
        "SELECT evtname::text FROM pg_event_trigger WHERE evtname = ANY (%s)", (list(_TRIGGERS),)
    ).fetchall()
    with conn.transaction():
        for (name,) in rows:
            conn.execute(sql.SQL("DROP EVENT TRIGGER IF EXISTS {}").format(sql.Identifier(name)))
        for function in ("ddl_told()", "ddl_captured()", "ddl_described(oid)"):
            conn.execute(f"DROP FUNCTION IF EXISTS cdc_migrator.{function}".encode())
    return bool(rows)


def _functions() -> bytes:
    text = files(__package__).joinpath("ddl_trigger.sql").read_text()
    return text.replace("{described}", query("relation")).encode()


def _when(tags: str | None) -> sql.Composable:
    if tags is None:
        return sql.SQL("")
    named = sql.SQL(", ").join(sql.Literal(tag) for tag in tags.split(", "))
    return sql.SQL("WHEN TAG IN ({})").format(named)
