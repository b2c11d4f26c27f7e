"""What a table is at one place of the stream, as the source described it there.

Beside what the stream needs (`Table`) it knows each column by its number, which a new name does not
change, and what would refuse rows. It travels as JSON: in a marker, and in the control schema.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from cdc_migrator.model.tables import Column, ReplicaIdentity, Table, TableName


@dataclass(frozen=True, slots=True)
class DescribedColumn:
    """One column.

    Attributes:
        number: ``attnum``: the same for as long as the column is there.
        collation: where it is not the type's, quoted.
        expression: of its default, or what generates it.
        enumeration: the enumeration that it, or its element, is of; `labels` are that one's,
            each with its oid, in their order.
    """

    number: int
    column: Column
    collation: str | None
    expression: str | None
    enumeration: str | None
    labels: tuple[tuple[int, str], ...]

    @property
    def name(self) -> str:
        return self.column.name


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A partitioned table that a table is part of; its own `bound` where that is part of another.

    `oid`: 0 where an earlier release described the table, which knew of the outermost one alone.
    """

    oid: int
    name: TableName
    bound: str | None


@dataclass(frozen=True, slots=True)
class Described:
    """One table; `document` is what it was read from.

    Attributes:
        oid: the source's, which stays when the table is renamed.
        file: its file, which another one replaces when it is rewritten or truncated.
        columns: dropped ones left out, in their order.
        constraints: keys, unique, check and exclusion constraints by name, with definitions.
        indexes: unique indexes that belong to no constraint, likewise.
        ancestors: from the table that it is a partition of to the outermost one.
        bound: its own as a partition, as SQL has it.
        bounds: what tells its own and those above it from others; None: it is no partition, or an
            earlier release described it.
    """

    oid: int
    table: Table
    file: int
    columns: tuple[DescribedColumn, ...]
    constraints: Mapping[str, str]
    indexes: Mapping[str, str]
    document: Mapping[str, Any]
    ancestors: tuple[Ancestor, ...]
    bound: str | None
    bounds: str | None

    @property
    def name(self) -> TableName:
        return self.table.name

    def same(self, other: Described) -> bool:
        """Whether nothing but sizes and files differs of what both releases describe."""
        one, two = _lasting(self.document), _lasting(other.document)
        return all(one[key] == two[key] for key in one.keys() & two.keys())


_PASSING = frozenset({"rows", "bytes", "file"})
_OF_COLUMN = frozenset(field.name for field in fields(Column))


def _lasting(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in _PASSING}


def read(document: Mapping[str, Any]) -> Described:
    """Out of what `describe.sql` made. Raises KeyError or ValueError where it is not that."""
    columns = tuple(_column(one) for one in document["columns"])
    root = document["root"]
    return Described(
        oid=int(document["oid"]),
        table=Table(
            name=TableName(document["schema"], document["name"]),
            columns=tuple(one.column for one in columns),
            key=tuple(document["key"]),
            replica_identity=ReplicaIdentity(document["replica_identity"]),
            root=TableName(document["root_schema"], root) if root else None,
            estimated_rows=int(document["rows"]),
            bytes=int(document["bytes"]),
        ),
        file=int(document["file"] or 0),
        columns=columns,
        constraints=document["constraints"],
        indexes=document["indexes"],
        document=document,
        ancestors=_ancestors(document),
        bound=document.get("bound"),
        bounds=document.get("bounds"),
    )


def _ancestors(document: Mapping[str, Any]) -> tuple[Ancestor, ...]:
    if "ancestors" in document:
        return tuple(
            Ancestor(int(oid), TableName(schema, name), bound)
            for oid, schema, name, bound in document["ancestors"]
        )
    root = document["root"]
    return (Ancestor(0, TableName(document["root_schema"], root), None),) if root else ()


def says_nothing(said: Mapping[str, Any], before: Mapping[int, Described]) -> bool:
    """Whether a `ddl` marker tells of a table that is what it was, such as where a trigger was
    switched on or off.

    One that is no such marker says something: whoever settles it says what is wrong with it.

    Args:
        before: what the tables are, by oid.
    """
    try:
        if said["event"] != "change" or said["tag"] == "CREATE INDEX":
            return False
        was = before.get(int(said["oid"]))
        return was is not None and read(said["table"]).same(was)
    except (KeyError, TypeError, ValueError):
        return False


def in_schema(table: Described, schema: str) -> Described:
    """The same table after its schema was given this name."""
    former = re.escape(table.name.schema)
    pattern = re.compile(rf'(?<![\w."])(?:{former}|"{former}")\.')

    def moved(value: Any) -> Any:
        if isinstance(value, str):
            return pattern.sub(lambda _: f"{schema}.", value)
        if isinstance(value, Mapping):
            return {key: moved(one) for key, one in value.items()}
        return [moved(one) for one in value] if isinstance(value, list) else value

    parts = {key: moved(table.document[key]) for key in ("columns", "constraints", "indexes")}
    return read({**table.document, **parts, "schema": schema})


def _column(said: Mapping[str, Any]) -> DescribedColumn:
    return DescribedColumn(
        number=int(said["number"]),
        column=Column(**{key: value for key, value in said.items() if key in _OF_COLUMN}),
        collation=said["collation"],
        expression=said["expression"],
        enumeration=said["enumeration"],
        labels=tuple((int(oid), str(label)) for oid, label in said["labels"] or ()),
    )
