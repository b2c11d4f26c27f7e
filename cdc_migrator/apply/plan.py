"""What writing to each table needs: its shape in the stream and the ways to its rows.

Made once, when the applier starts; nothing here changes while it runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psycopg

from cdc_migrator.apply.shape import Reread, Shape
from cdc_migrator.databases.postgres import catalog
from cdc_migrator.databases.postgres.forms import Builder
from cdc_migrator.databases.postgres.types import Refusal, carry
from cdc_migrator.errors import Refused
from cdc_migrator.model.tables import Column, Table, TableName
from cdc_migrator.stream.rows import KeyDecoder, RowDecoder


@dataclass(frozen=True, slots=True)
class TablePlan:
    """One table of the stream and its place on the target.

    Attributes:
        columns, builds: the columns that travel, in the shape's order, and how each one's
            staged text becomes a value.
        identity: what the target's indexes allow.
        replace: rows are always deleted and inserted again, because no index can decide
            ON CONFLICT or a column must not be updated (GENERATED ALWAYS AS IDENTITY).
    """

    shape: Shape
    target: TableName
    columns: tuple[Column, ...]
    builds: tuple[Builder, ...]
    identity: catalog.Identity
    replace: bool

    @property
    def key(self) -> tuple[Column, ...]:
        """The key columns, in the order of the stream's keys."""
        return tuple(self.columns[place] for place in self.shape.key_places)


def plan_tables(
    conn: psycopg.Connection,
    tables: Iterable[Table],
    placeholder: str,
    rereads: Mapping[TableName, Reread] | None = None,
    targets: Mapping[TableName, TableName] | None = None,
) -> dict[TableName, TablePlan]:
    """The plan of every table of the stream.

    Args:
        conn: a session on the target, whose indexes are looked at.
        tables: as the source's catalog describes them (the stream's forms follow from it).
        placeholder: what the connector writes for values that an update left as they are.
        rereads: tables that were loaded again under a later snapshot.
        targets: where a table goes when not to the table of the same name.

    Raises:
        Refused: CDCM-TYPE-UNSUPPORTED or CDCM-TARGET-TABLE-MISSING.
    """
    plans = {}
    for table in tables:
        target = (targets or {}).get(table.name, table.name)
        _require_columns(conn, table, target)
        reread = (rereads or {}).get(table.name)
        plans[table.name] = plan_table(
            table, target, catalog.identity(conn, target, table.key), placeholder, reread
        )
    return plans


def plan_table(
    table: Table,
    target: TableName,
    identity: catalog.Identity,
    placeholder: str,
    reread: Reread | None = None,
) -> TablePlan:
    """The plan of one table. Raises Refused: CDCM-TYPE-UNSUPPORTED."""
    columns = table.carried
    ways = []
    for column in columns:
        way = carry(column)
        if isinstance(way, Refusal):
            raise Refused(
                way.code,
                f"column {column.name} of {table.name} has the type {column.type_text}: "
                f"{way.reason}",
                "Leave the table out (`tables.exclude`), or give the column a supported type.",
            )
        ways.append(way)
    members = [(c.name, way.json_string) for c, way in zip(columns, ways, strict=True)]
    places = {column.name: place for place, column in enumerate(columns)}
    key_places = tuple(places[name] for name in table.key)
    shape = Shape(
        name=table.name,
        columns=tuple(places),
        key_places=key_places,
        rows=RowDecoder(table.name, members, placeholder),
        keys=KeyDecoder(table.name, [members[p] for p in key_places]) if key_places else None,
        numeric_key=bool(key_places) and not members[key_places[0]][1],
        reread=reread,
    )
    fixed = any(
        column.identity == "a" for place, column in enumerate(columns) if place not in key_places
    )
    return TablePlan(
        shape=shape,
        target=target,
        columns=columns,
        builds=tuple(way.build for way in ways),
        identity=identity,
        replace=bool(key_places) and (fixed or not identity.arbiter),
    )


_TARGET_COLUMNS = """
SELECT a.attname::text, a.attgenerated <> '' FROM pg_attribute a
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
"""


def _require_columns(conn: psycopg.Connection, table: Table, target: TableName) -> None:
    quoted = psycopg.sql.Identifier(target.schema, target.name).as_string(conn)
    there: dict[str, bool] = dict(conn.execute(_TARGET_COLUMNS, (quoted,)).fetchall())
    missing = [column.name for column in table.carried if there.get(column.name) is not False]
    if not there or missing:
        what = f"has no column {', '.join(missing)} to write to" if there else "does not exist"
        raise Refused(
            "CDCM-TARGET-TABLE-MISSING",
            f"the table {target} on the target {what}",
            "Bring the target's schema in line with the source's, then start again.",
        )
