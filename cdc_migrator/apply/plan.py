"""What writing to each table needs: its shape in the stream and the ways to its rows.

Made when the applier starts, and anew when it learns of more tables; nothing here changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import psycopg

from cdc_migrator.apply.beside import EventRows, SideRows, SideValues
from cdc_migrator.apply.shape import DecodesRows, Reread, Shape
from cdc_migrator.databases.postgres import catalog, names
from cdc_migrator.databases.postgres.forms import Builder, cast
from cdc_migrator.databases.postgres.side import Side
from cdc_migrator.databases.postgres.types import Beside, InEvent, Way, way
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
    sides: Mapping[TableName, Side] | None = None,
    rereads: Mapping[TableName, Reread] | None = None,
    targets: Mapping[TableName, TableName] | None = None,
) -> dict[TableName, TablePlan]:
    """The plan of every table of the stream.

    Args:
        conn: a session on the target, whose indexes are looked at.
        tables: as the source's catalog describes them (the stream's forms follow from it).
        placeholder: what the connector writes for values that an update left as they are.
        sides: of the tables whose events do not hold everything.
        rereads: tables that were loaded again under a later snapshot.
        targets: where a table goes when not to the table of the same name.

    Raises:
        Refused: CDCM-TARGET-TABLE-MISSING.
    """
    plans = {}
    for table in tables:
        target = (targets or {}).get(table.name, table.name)
        _require_columns(conn, table, target)
        plans[table.name] = plan_table(
            table,
            target,
            catalog.identity(conn, target, table.key),
            placeholder,
            (sides or {}).get(table.name),
            (rereads or {}).get(table.name),
        )
    return plans


def plan_table(
    table: Table,
    target: TableName,
    identity: catalog.Identity,
    placeholder: str,
    side: Side | None = None,
    reread: Reread | None = None,
) -> TablePlan:
    """The plan of one table. `side` must be given where some column is not in its events."""
    columns = table.carried
    ways = [way(column) for column in columns]
    assert side is not None or not any(isinstance(how, Beside) for how in ways)
    shape = _shape(table, ways, placeholder, side, reread)
    fixed = any(
        column.identity == "a"
        for place, column in enumerate(columns)
        if place not in shape.key_places
    )
    whole = side is not None and side.whole
    return TablePlan(
        shape=shape,
        target=target,
        columns=columns,
        # Whole rows come as texts of PostgreSQL's own.
        builds=tuple(
            cast(names.type_name(column.type_text)) if whole else how.build
            for column, how in zip(columns, ways, strict=True)
        ),
        identity=identity,
        replace=bool(shape.key_places) and (fixed or not identity.arbiter),
    )


def _shape(
    table: Table, ways: Sequence[Way], placeholder: str, side: Side | None, reread: Reread | None
) -> Shape:
    columns = table.carried
    members = [(c.name, _in_string(how)) for c, how in zip(columns, ways, strict=True)]
    places = {column.name: place for place, column in enumerate(columns)}
    left_out = {column.name for column in side.left_out} if side is not None else set()
    kept = [name for name in places if name not in left_out]
    in_event = RowDecoder(table.name, [members[places[n]] for n in kept], placeholder)
    rows: DecodesRows = in_event
    if left_out:
        rows = EventRows(in_event, tuple(places[n] for n in kept), len(columns))
    key_places = () if side is not None and side.whole else tuple(places[n] for n in table.key)
    key = [members[place] for place in key_places]
    values = images = None
    if side is not None and side.whole:
        images = SideRows(side, placeholder)
    elif side is not None:
        where = tuple(places[column.name] for column in side.columns)
        values = SideValues(side, key, where, len(columns), placeholder)
    return Shape(
        name=table.name,
        columns=tuple(places),
        key_places=key_places,
        rows=rows,
        keys=KeyDecoder(table.name, key) if key else None,
        numeric_key=bool(key) and not key[0][1],
        values=values,
        images=images,
        reread=reread,
    )


def _in_string(how: Way) -> bool:
    return how.json_string if isinstance(how, InEvent) else True


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
