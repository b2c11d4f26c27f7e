"""A temporary table of a source row's shape, on which a server is asked about expressions.

The server says what an expression's type is, which columns it reads and whether it is immutable:
by a generated column, which PostgreSQL refuses for anything else, whatever its type. Nothing of it
stays: all happens in a transaction that is rolled back. Sessions come from `connect`, so what is
asked is asked under the settings under which rows are loaded, applied and compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import names
from cdc_migrator.databases.postgres.sqlstate import connection_lost
from cdc_migrator.model.tables import Table

_ROW = sql.Identifier("pg_temp", "cdcm_row")
_ASSIGNED = sql.Identifier("pg_temp", "cdcm_assigned")
_GENERATED = sql.Identifier("cdcm generated")
MUTABLE = "42P17"
_TYPE = """
WITH RECURSIVE resolved AS (
    SELECT %(type)s::oid AS oid
    UNION ALL
    SELECT t.typbasetype FROM resolved r JOIN pg_type t ON t.oid = r.oid WHERE t.typtype = 'd'
)
SELECT format_type(%(type)s::oid, %(modifier)s), n.nspname || '.' || t.typname
FROM resolved r JOIN pg_type t ON t.oid = r.oid AND t.typtype <> 'd'
JOIN pg_namespace n ON n.oid = t.typnamespace
"""
_USED = """
SELECT pg_get_expr(d.adbin, d.adrelid),
       ARRAY(SELECT DISTINCT p.refobjsubid::int FROM pg_depend p
             WHERE p.refclassid = 'pg_class'::regclass AND p.refobjid = d.adrelid
               AND p.refobjsubid NOT IN (0, d.adnum)
               AND (p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid
                    OR p.classid = 'pg_class'::regclass AND p.objid = d.adrelid
                       AND p.objsubid = d.adnum)
             ORDER BY 1)
FROM pg_attrdef d
JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
WHERE d.adrelid = 'pg_temp.cdcm_row'::regclass AND a.attname = 'cdcm generated'
"""
_COUNT = """
SELECT count(*) FROM pg_attribute
WHERE attrelid = 'pg_temp.cdcm_row'::regclass AND attnum > 0 AND NOT attisdropped
"""
# What a server may object to in an expression; anything else is no answer about it.
_OBJECTIONS = frozenset({"0A", "22", "38", "39", "3F", "42", "54", "P0"})
# A date or time that is spelled so is worked out when the statement is read, each time anew.
_CLOCK = re.compile(r"\b(now|today|tomorrow|yesterday)\b", re.IGNORECASE)
_LITERAL = re.compile(r"'([^']*)'|\$(\w*)\$(.*?)\$\2\$", re.DOTALL)


class Rejected(Exception):
    """What a server says against an expression.

    Attributes:
        sqlstate: None where it is not PostgreSQL that objects.
        told: its words, with the place in the expression; no value of a row is in it.
    """

    def __init__(self, sqlstate: str | None, told: str) -> None:
        super().__init__(told)
        self.sqlstate = sqlstate
        self.told = told


@dataclass(frozen=True, slots=True)
class Typed:
    """A type as `model.tables.Column` has it."""

    text: str
    base: str


@dataclass(frozen=True, slots=True)
class Known:
    """What a server says of an expression.

    Attributes:
        uses: the columns that it reads; None where the server could not tell.
        of: the column that it plainly is; None: none.
    """

    type: Typed
    uses: tuple[str, ...] | None
    of: str | None


class Bench:
    """One table's row in one session.

    Attributes:
        temporary: the server let us make it. Where not, expressions are asked about over the table
            itself, and neither what they read nor whether they are immutable is known.
        lacking: columns of the table whose type the server does not have; nothing can read them.
    """

    def __init__(self, conn: psycopg.Connection, table: Table, temporary: bool = True) -> None:
        self._conn = conn
        self._table = table
        self.temporary = temporary
        self.lacking = frozenset(
            one.name
            for one in table.columns
            if "." in one.type_text and not has_type(conn, one.type_text)
        )
        # By their numbers in the temporary table.
        self._columns = [one for one in table.columns if one.name not in self.lacking]
        self._row: sql.Composable = _ROW
        if temporary:
            conn.execute(
                sql.SQL("CREATE TEMP TABLE cdcm_row ({})").format(
                    sql.SQL(", ").join(_defined(one.name, one.type_text) for one in self._columns)
                )
            )
        else:
            self._row = sql.SQL("ONLY {}").format(names.table(table.name))

    def expect(self, columns: Sequence[tuple[str, str]]) -> None:
        """Name the target's columns with their types, which `assign` asks about."""
        self._conn.execute(
            sql.SQL("CREATE TEMP TABLE cdcm_assigned ({})").format(
                sql.SQL(", ").join(_defined(name, type_text) for name, type_text in columns)
            )
        )

    def type_of(self, text: str) -> Typed:
        """The type that an expression has. Raises Rejected."""
        before = sql.SQL("SELECT (")
        result = self._ask(before, text, sql.SQL("\n) FROM {} LIMIT 0").format(self._row))
        if result.nfields != 1:
            raise Rejected(None, f"it is {result.nfields} expressions")
        found = resolve(self._conn, result.ftype(0), result.fmod(0))
        assert found is not None
        return found

    def examine(self, text: str) -> Known:
        """Everything about an expression.

        Raises:
            Rejected: the server does not accept it, or it is not immutable.
        """
        of_type = self.type_of(text)
        if not self.temporary:
            return Known(of_type, None, None)
        generated, uses = self._generated(text, of_type)
        if any(number < 0 for number in uses):
            raise Rejected(None, "it reads a system column, whose values differ between servers")
        for literal in _LITERAL.finditer(text):
            content = literal[1] or literal[3] or ""
            clock = _CLOCK.search(content)
            if clock and f"'{content}'" not in generated:
                raise Rejected(
                    None,
                    f"the literal with {clock[0]!r} in it is read anew by each statement: it does "
                    "not give the same twice",
                )
        used = tuple(self._columns[number - 1].name for number in uses)
        plain = len(used) == 1 and generated == sql.Identifier(used[0]).as_string(self._conn)
        bare = len(used) == 1 and generated == used[0]
        return Known(of_type, used, used[0] if plain or bare else None)

    def condition(self, text: str) -> Known:
        """Everything about a condition.

        Raises:
            Rejected: as `examine`; it is no condition.
        """
        before = sql.SQL("SELECT FROM {} WHERE (").format(self._row)
        self._ask(before, text, sql.SQL("\n) LIMIT 0"))
        return self.examine(text)

    def pinned(self, value: sql.Composable) -> bool:
        """Whether a value gives the same whatever a session's settings are, as far as is known."""
        if not self.temporary:
            return True
        of_type = self.type_of(value.as_string(self._conn))
        try:
            self._generated(value.as_string(self._conn), of_type)
        except Rejected as rejected:
            if rejected.sqlstate == MUTABLE:
                return False
            raise
        return True

    def accepts(self, value: sql.Composable) -> None:
        """See that the server makes a value of this. Raises Rejected."""
        after = sql.SQL(" FROM {} LIMIT 0").format(self._row)
        self._ask(sql.SQL("SELECT "), value.as_string(self._conn), after)

    def assign(self, name: str, text: str) -> None:
        """See that the expression may be assigned to this column of the target as it is.

        Raises:
            Rejected: only an explicit cast would bring it there.
        """
        before = sql.SQL("INSERT INTO {} ({}) SELECT (").format(_ASSIGNED, sql.Identifier(name))
        self._ask(before, text, sql.SQL("\n) FROM {} WHERE false").format(self._row))

    def constant(self, value: sql.Composable) -> str | None:
        """An expression without columns, as text. Raises Rejected."""
        try:
            with self._conn.transaction():
                row = self._conn.execute(sql.SQL("SELECT ({})::text").format(value)).fetchone()
        except psycopg.Error as exc:
            raise rejected(exc) from exc
        assert row is not None
        found: str | None = row[0]
        return found

    def _generated(self, text: str, of_type: Typed) -> tuple[str, list[int]]:
        """The expression as the server reads it, and the numbers of the columns in it."""
        before = sql.SQL("ALTER TABLE {} ADD COLUMN {} {} GENERATED ALWAYS AS (").format(
            _ROW, _GENERATED, names.type_name(of_type.text)
        )
        with self._conn.transaction(force_rollback=True):
            self._ask(before, text, sql.SQL("\n) STORED"))
            # Not prepared: the table's number would be that of an earlier bench.
            rows = self._conn.execute(_USED, prepare=False).fetchall()
            count = self._conn.execute(_COUNT, prepare=False).fetchone()
        if len(rows) != 1 or count != (len(self._columns) + 1,):
            raise Rejected(None, "it is more than one expression")
        generated, uses = rows[0]
        return generated, uses

    def _ask(
        self, before: sql.Composable, text: str, after: sql.Composable
    ) -> psycopg.pq.abc.PGresult:
        """Run a statement around an expression, as one. Raises Rejected."""
        start = before.as_string(self._conn)
        statement = start + text + after.as_string(self._conn)
        try:
            with self._conn.transaction():
                # Binary results make it the extended protocol, which takes one statement only.
                cursor = self._conn.execute(sql.SQL(statement), prepare=False, binary=True)
                result = cursor.pgresult
        except psycopg.Error as exc:
            raise rejected(exc, len(start), text) from exc
        assert result is not None
        return result


@contextmanager
def bench(conn: psycopg.Connection, table: Table, here: bool) -> Iterator[Bench]:
    """A bench of which nothing stays.

    The session must be in autocommit mode and outside of a transaction; one that only reads is made
    to write for this transaction.

    Args:
        here: the table itself is on this server, to fall back on.
    """
    with conn.transaction(force_rollback=True):
        made = None
        try:
            conn.execute("SET TRANSACTION READ WRITE")
            with conn.transaction():
                made = Bench(conn, table)
        except psycopg.Error as exc:
            # No right to make one, a server that only reads, an event trigger that forbids it, …
            if not here or connection_lost(exc):
                raise
        if made is not None:
            yield made
            return
    with conn.transaction(force_rollback=True):
        yield Bench(conn, table, temporary=False)


def has_type(conn: psycopg.Connection, text: str) -> bool:
    """Whether the server has a type that is spelled like this, as ``format_type`` does."""
    try:
        with conn.transaction():
            row = conn.execute("SELECT to_regtype(%s) IS NOT NULL", (text,)).fetchone()
    except psycopg.Error as exc:
        if exc.sqlstate is None or exc.sqlstate[:2] not in ("42", "3F", "0A", "22"):
            raise
        return False
    return row is not None and bool(row[0])


def type_named(conn: psycopg.Connection, text: str) -> Typed | None:
    """A type that the user wrote, as the catalog spells it; None where the server has none."""
    if not has_type(conn, text):
        return None
    with conn.transaction():
        row = conn.execute("SELECT to_regtype(%s)::oid", (text,)).fetchone()
        # The catalog has read it as the name of a type, and of nothing else.
        cursor = conn.execute(sql.SQL("SELECT NULL::{}").format(sql.SQL(text)))
        assert row is not None
        assert cursor.pgresult is not None
        same = cursor.pgresult.ftype(0) == row[0]
        return resolve(conn, row[0], cursor.pgresult.fmod(0) if same else -1)


def resolve(conn: psycopg.Connection, oid: int, modifier: int) -> Typed | None:
    """A type by its number, its name and that of what it is made of."""
    row = conn.execute(_TYPE, {"type": oid, "modifier": modifier}).fetchone()
    return Typed(*row) if row is not None else None


def rejected(exc: psycopg.Error, before: int = 0, text: str = "") -> Rejected:
    """The server's own words about a statement that reads no row.

    Args:
        before: so many characters of the statement stand in front of the expression `text`.

    Raises:
        psycopg.Error: it is nothing about the statement.
    """
    diag = exc.diag
    state = exc.sqlstate
    if state is None or state[:2] not in _OBJECTIONS:
        raise exc
    told = diag.message_primary or "an error"
    if diag.message_detail:
        told += f": {diag.message_detail}"
    at = int(diag.statement_position or 0) - before
    if 0 < at <= len(text):
        line = text[at - 1 :].split("\n", 1)[0]
        told += f" (at character {at}: {line[:40]})"
    return Rejected(state, told)


def _defined(name: str, type_text: str) -> sql.Composed:
    return sql.SQL("{} {}").format(sql.Identifier(name), names.type_name(type_text))
