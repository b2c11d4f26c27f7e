"""Side tables: how values reach the stream that the connector's events cannot hold.

A row trigger on a table with such columns writes the row's key and the text of just those
columns into a side table, in the same transaction; the side table is captured like any other.
So an event and what it lacks arrive in one transaction, whose last word about a key counts:

* the trigger writes what the row holds when it fires, which may be later than the change that
  queued it, never earlier (PostgreSQL documentation, Overview of Trigger Behavior);
* it fires after the change, so its row stands behind the change in the stream.

A table whose key holds such a column, or that has no key, sends its whole rows this way, and its
truncates; it needs no events of its own.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg import sql

from cdc_migrator.databases.postgres import names
from cdc_migrator.databases.postgres.types import Beside, InEvent, equality, way
from cdc_migrator.model.naming import CONTROL_SCHEMA
from cdc_migrator.model.tables import Column, ReplicaIdentity, Table, TableName

# Text that does not depend on the session of the application.
_SETTINGS = {
    "search_path": "pg_catalog",
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
}


@dataclass(frozen=True, slots=True)
class Side:
    """The side table of one table.

    Attributes:
        of: the table. name: the side table, the trigger and its function, in the control schema.
        key: columns of the row's key, as they are; empty where whole rows are sent.
        columns: columns whose text is sent; all that travel, where whole rows are.
        always: every insert and update sends a row; otherwise only those with an odd value.
    """

    of: Table
    name: TableName
    key: tuple[Column, ...]
    columns: tuple[Column, ...]
    always: bool

    @property
    def whole(self) -> bool:
        """Whether whole rows are sent, old and new."""
        return not self.key

    @property
    def left_out(self) -> tuple[Column, ...]:
        """The columns that are kept from the connector, which would stop at some of their values.

        Under REPLICA IDENTITY FULL they cannot be: PostgreSQL would refuse the application's
        updates.
        """
        if self.whole or self.of.replica_identity is ReplicaIdentity.FULL:
            return ()
        return tuple(c for c in self.of.carried if isinstance(way(c), Beside))


def sides(tables: Iterable[Table], migration: str) -> dict[TableName, Side]:
    """The side table of each table that needs one; `tables` are all of the migration."""
    tables = list(tables)
    dotted = Counter(str(table.name) for table in tables)
    found = {}
    for table in tables:
        lost = '"' in str(table.name) or dotted[str(table.name)] > 1
        one = _side(table, migration, lost)
        if one is not None:
            found[table.name] = one
    return found


def _side(table: Table, migration: str, lost: bool) -> Side | None:
    """`lost`: the connector drops this table's events, or takes them for another's."""
    ways = [(column, way(column)) for column in table.carried]
    beside = tuple(column for column, how in ways if isinstance(how, Beside))
    odd = tuple(column for column, how in ways if isinstance(how, InEvent) and how.odd)
    if not (beside or odd or lost):
        return None
    digest = hashlib.md5(
        "\0".join((migration, table.name.schema, table.name.name)).encode(), usedforsecurity=False
    ).hexdigest()
    name = TableName(CONTROL_SCHEMA, f"side_{digest[:20]}")
    if lost or not table.key or {*table.key} & {c.name for c in (*beside, *odd)}:
        return Side(table, name, (), table.carried, always=True)
    key = tuple(table.column(one) for one in table.key)
    return Side(table, name, key, beside + odd, always=bool(beside))


def reasons(one: Side) -> list[str]:
    """Why a table has a side table, in words, with the columns concerned."""
    told = []
    if '"' in str(one.of.name):
        told.append("the connector drops the events of a table with a quote in its name")
    for column in one.of.carried:
        how = way(column)
        if isinstance(how, Beside) or how.odd is not None:
            told.append(f"{column.name} ({column.type_text}): {how.reason}")
    if not told:
        told.append("the connector cannot tell it from a table of the same name with its dots")
    return told


def create(one: Side) -> list[sql.Composed]:
    """Statements that make the side table, its function and its trigger.

    The first one only has the server plan the function's expressions: an error in the trigger
    would be an error of the application.
    """
    name, table = names.table(one.name), names.table(one.of.name)
    members = _image_members(one) if one.whole else _key_members(one)
    body = _send_images(one) if one.whole else _send_values(one)
    events = "INSERT OR UPDATE OR DELETE" if one.whole else "INSERT OR UPDATE"
    statements = [
        sql.SQL("SELECT {}, {}, {} FROM ONLY {} AS old, ONLY {} AS new WHERE {} LIMIT 0").format(
            _texts("old", one.columns),
            _texts("new", one.columns),
            _same_image(one),
            table,
            table,
            _same_key(one, "old") if one.key else sql.SQL("true"),
        ),
        sql.SQL("CREATE TABLE {} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {})").format(
            name, sql.SQL(", ").join(members)
        ),
        sql.SQL("COMMENT ON TABLE {} IS {}").format(
            name, sql.Literal(f"cdc-migrator: values of {one.of.name} on their way")
        ),
        sql.SQL(
            "CREATE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER {} AS {}"
        ).format(
            name,
            sql.SQL(" ").join(
                sql.SQL("SET {} = {}").format(
                    sql.Identifier(key), sql.SQL(value) if key == "search_path" else value
                )
                for key, value in _SETTINGS.items()
            ),
            sql.Literal(body.as_string()),
        ),
        sql.SQL(
            "CREATE TRIGGER {} AFTER " + events + " ON {} FOR EACH ROW {} EXECUTE FUNCTION {}()"
        ).format(trigger(one.name), table, _when(one), name),
        # Also where a session replicates into the source, or switched ordinary triggers off.
        _always(table, trigger(one.name)),
    ]
    if one.whole:
        emptied = sql.Identifier(f"cdc_migrator_{one.name.name}_t")
        statements += [
            sql.SQL(
                "CREATE TRIGGER {} AFTER TRUNCATE ON {} FOR EACH STATEMENT EXECUTE FUNCTION {}()"
            ).format(emptied, table, name),
            _always(table, emptied),
        ]
    return statements


def _always(table: sql.Identifier, name: sql.Identifier) -> sql.Composed:
    return sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(table, name)


def trigger(name: TableName) -> sql.Identifier:
    """The name of the trigger that fills a side table."""
    return sql.Identifier(f"cdc_migrator_{name.name}")


def _when(one: Side) -> sql.Composable:
    return sql.SQL("") if one.always else sql.SQL("WHEN ({})").format(_holds_odd(one))


def _holds_odd(one: Side) -> sql.Composable:
    """Whether the new row has a value that the event distorts."""
    ways = ((column, way(column)) for column in one.columns)
    conditions = [
        how.odd(sql.Identifier("new", column.name))
        for column, how in ways
        if isinstance(how, InEvent) and how.odd is not None
    ]
    return sql.SQL(" OR ").join(conditions) if conditions else sql.SQL("false")


def _key_members(one: Side) -> list[sql.Composable]:
    typed = [
        sql.SQL("{} {}").format(sql.Identifier(f"k{i}"), names.type_name(column.type_text))
        for i, column in enumerate(one.key)
    ]
    texts = [sql.SQL("{} text").format(sql.Identifier(f"v{i}")) for i in range(len(one.columns))]
    return [*typed, *texts, sql.SQL("kept boolean NOT NULL")]


def _image_members(one: Side) -> list[sql.Composable]:
    texts = [
        sql.SQL("{} text").format(sql.Identifier(f"{image}{i}"))
        for image in "ba"
        for i in range(len(one.columns))
    ]
    return [sql.SQL("op text NOT NULL"), *texts]


def _send_values(one: Side) -> sql.Composable:
    """An update that leaves key and values as they are says just that, unless the event distorts
    one of them: it carries what did not change as well.

    The row may be gone or moved on when the trigger fires: then a later row of the side table
    speaks of it, and it does not matter what is said of the key here.
    """
    pattern = """
BEGIN
    IF TG_OP = 'UPDATE' AND {unchanged} AND ({odd}) IS NOT TRUE THEN
        INSERT INTO {name} ({keys}, kept) VALUES ({new_key}, true);
        RETURN NULL;
    END IF;
    INSERT INTO {name} ({keys}, {values}, kept)
        SELECT {their_key}, {their_text}, false FROM ONLY {table} AS t WHERE {same};
    IF NOT FOUND THEN
        INSERT INTO {name} ({keys}, {values}, kept) VALUES ({new_key}, {new_text}, false);
    END IF;
    RETURN NULL;
END
"""
    return sql.SQL(pattern).format(
        name=names.table(one.name),
        table=names.table(one.of.name),
        keys=_numbered("k", one.key),
        values=_numbered("v", one.columns),
        unchanged=_same_image(one),
        odd=_holds_odd(one),
        new_key=_of("new", one.key),
        their_key=_of("t", one.key),
        new_text=_texts("new", one.columns),
        their_text=_texts("t", one.columns),
        same=_same_key(one, "t"),
    )


def _same_image(one: Side) -> sql.Composable:
    """Whether key and values are the same bytes in the old and the new row."""
    watched = (*one.key, *one.columns)
    return sql.SQL("record_image_eq(ROW({}), ROW({}))").format(
        _of("old", watched), _of("new", watched)
    )


def _same_key(one: Side, row: str) -> sql.Composable:
    return sql.SQL(" AND ").join(
        sql.SQL("{} {} {}").format(
            sql.Identifier(row, c.name), equality(c), sql.Identifier("new", c.name)
        )
        for c in one.key
    )


def _send_images(one: Side) -> sql.Composable:
    """Old and new row; OLD is null in an insert, NEW in a delete."""
    pattern = """
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO {name} (op) VALUES (TG_OP);
    ELSE
        INSERT INTO {name} (op, {before}, {after}) VALUES (TG_OP, {old}, {new});
    END IF;
    RETURN NULL;
END
"""
    return sql.SQL(pattern).format(
        name=names.table(one.name),
        before=_numbered("b", one.columns),
        after=_numbered("a", one.columns),
        old=_texts("old", one.columns),
        new=_texts("new", one.columns),
    )


def _numbered(letter: str, columns: Sequence[Column]) -> sql.Composable:
    return sql.SQL(", ").join(sql.Identifier(f"{letter}{i}") for i in range(len(columns)))


def _of(row: str, columns: Sequence[Column]) -> sql.Composable:
    return sql.SQL(", ").join(sql.Identifier(row, column.name) for column in columns)


def _texts(row: str, columns: Sequence[Column]) -> sql.Composable:
    """The output function's text, which a cast to text is not for every type.

    A row type with nothing but nulls in it IS NULL, but is not null.
    """
    return sql.SQL(", ").join(
        sql.SQL("CASE WHEN num_nulls({0}) = 0 THEN concat({0}) END").format(
            sql.Identifier(row, column.name)
        )
        for column in columns
    )
