"""The table of types: how each type travels in an event, or why it cannot yet.

The forms are those captured from the connector under this service's settings (decimals,
intervals as strings, ISO times, binary as base64, hstore as JSON, unknown types included).
What was not seen to arrive exactly is refused, not hoped for.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from cdc_migrator.databases.postgres import forms, names
from cdc_migrator.model.tables import Column, ReplicaIdentity, Table, TableName


@dataclass(frozen=True, slots=True)
class Carry:
    """How a column's values travel.

    Attributes:
        json_string: the event holds a JSON string, whose decoded text is staged; otherwise the
            raw JSON text of the value (number, boolean, object, array) is.
        build: SQL of the staged text to SQL of a value of the column's base type.
        note: a value that this way distorts, for `check` to show; empty if there is none.
    """

    json_string: bool
    build: forms.Builder
    note: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a column's values cannot be carried exactly; `code` is stable."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A refused column, with what the user can do about it."""

    table: TableName
    column: str
    type_text: str
    code: str
    reason: str
    remedy: str


# fmt: off
_STRINGS = (
    "uuid", "json", "jsonb", "inet", "cidr", "macaddr", "macaddr8", "tsvector", "interval",
    "name", "char", "int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange",
)
_BASE64_TEXTS = (
    "pg_lsn", "xid", "xid8", "tsquery", "jsonpath", "txid_snapshot", "pg_snapshot",
    "int4multirange", "int8multirange", "nummultirange", "tsmultirange", "tstzmultirange",
    "datemultirange",
)
_REG = (
    "regclass", "regtype", "regproc", "regprocedure", "regoper", "regoperator", "regrole",
    "regnamespace", "regconfig", "regdictionary", "regcollation",
)
# fmt: on
_NUMBERS = ("bool", "int2", "int4", "int8", "oid")

_MIDNIGHT = "24:00:00 arrives as 00:00:00"
_NAMES = "its value is a name, looked up on the target by its qualified spelling"
_FLAT = "only one-dimensional arrays that start at 1 arrive whole"


def _builtin_types() -> dict[str, Carry]:
    cast = {name: forms.cast(forms.builtin(name)) for name in (*_STRINGS, *_NUMBERS, "bpchar")}
    known = {name: Carry(True, cast[name]) for name in _STRINGS}
    known |= {name: Carry(False, cast[name]) for name in _NUMBERS}
    known |= {
        name: Carry(True, forms.from_base64_text(forms.builtin(name))) for name in _BASE64_TEXTS
    }
    known |= {
        name: Carry(True, forms.from_base64_text(forms.builtin(name)), _NAMES) for name in _REG
    }
    return known | {
        "float4": Carry(False, forms.cast(forms.builtin("float4"))),
        "float8": Carry(False, forms.cast(forms.builtin("float8"))),
        "numeric": Carry(True, forms.numeric),
        "money": Carry(True, forms.money),
        "text": Carry(True, forms.text),
        "varchar": Carry(True, forms.text),
        # Without a cast, comparing char(n) with text would strip the padding and miss the index.
        "bpchar": Carry(True, cast["bpchar"]),
        "bytea": Carry(True, forms.bytea),
        "date": Carry(True, forms.calendar("date")),
        "timestamp": Carry(True, forms.calendar("timestamp")),
        "timestamptz": Carry(True, forms.calendar("timestamptz")),
        "time": Carry(True, forms.cast(forms.builtin("time")), _MIDNIGHT),
        "point": Carry(False, forms.point),
        "line": Carry(False, forms.line),
        "circle": Carry(False, forms.circle),
    }


_BUILTIN = _builtin_types()

_REFUSED = {
    "varbit": "the connector drops leading zeros and the length",
    "timetz": "the connector drops the zone",
    "lseg": "its binary form cannot be read back yet",
    "box": "its binary form cannot be read back yet",
    "path": "its binary form cannot be read back yet",
    "polygon": "its binary form cannot be read back yet",
}

# fmt: off
# Elements of arrays that were seen to arrive exactly.
_ELEMENTS = frozenset({
    "bool", "int2", "int4", "int8", "oid", "float4", "float8", "numeric", "text", "varchar",
    "bpchar", "bytea", "date", "time", "timestamp", "timestamptz", "uuid", "json", "jsonb",
    "inet", "macaddr", "tsvector", "int4range",
})
_ABSENT_ELEMENTS = frozenset({
    "interval", "money", "point", "name", "varbit", "xml", "refcursor",
})
# Elements whose array has a known form where an update leaves the stored-aside value alone; the
# connector stops at such an update of any other array, unless the old row is in the log too.
_UNCHANGED_ELEMENTS = frozenset({
    "text", "varchar", "bpchar", "json", "jsonb", "int4", "int8", "uuid",
})
# fmt: on
_EXTENSION_STRINGS = ("citext", "ltree")

_TRAVEL = "CDCM-TYPE-UNSUPPORTED"
_TOAST = "CDCM-TYPE-UNCHANGED"


def carry(column: Column) -> Carry | Refusal:
    """The way of this column's values, or why there is none."""
    if "." in column.base_type.partition(".")[2]:
        return Refusal(_TRAVEL, "a dot in the name of its schema or type is not supported")
    if column.element is not None:
        return _array(column, column.element, column.element_category or "b")
    return _scalar(column.base_type, column.category, column.length)


def _named(base_type: str) -> sql.Identifier:
    schema, _, name = base_type.partition(".")
    return sql.Identifier(schema, name)


def _scalar(base_type: str, category: str, length: int | None) -> Carry | Refusal:
    schema, _, name = base_type.partition(".")
    if schema == "pg_catalog" and name == "bit":
        if length is None:
            return Refusal(_TRAVEL, "bit without a length")
        return Carry(False, forms.one_bit) if length == 1 else Carry(True, forms.bits(length))
    if schema == "pg_catalog" and name in _BUILTIN:
        return _BUILTIN[name]
    if schema == "pg_catalog":
        return Refusal(_TRAVEL, _REFUSED.get(name, "it was not proven to travel exactly"))
    if category == "e":
        return Carry(True, forms.cast(_named(base_type)))
    if category == "c":
        return Carry(True, forms.from_base64_text(_named(base_type)))
    if name in _EXTENSION_STRINGS:
        return Carry(True, forms.cast(_named(base_type)))
    if name == "hstore":
        return Carry(True, forms.hstore(schema))
    return Refusal(_TRAVEL, "it was not proven to travel exactly")


def _array(column: Column, element: str, category: str) -> Carry | Refusal:
    if not column.type_text.endswith("[]"):
        return Refusal(_TRAVEL, "a domain over an array was not proven to travel exactly")
    schema, _, name = element.partition(".")
    if category in ("c", "d"):
        # Composites and domains are types that the connector does not know.
        return Carry(False, forms.array(forms.from_base64_text(_named(element))), _FLAT)
    if schema == "pg_catalog" and name in _ABSENT_ELEMENTS:
        return Refusal(_TRAVEL, "the connector leaves arrays of this type out of its events")
    if schema == "pg_catalog" and name not in _ELEMENTS:
        return Refusal(_TRAVEL, "arrays of this type were not proven to travel exactly")
    if schema != "pg_catalog" and category != "e" and name not in ("citext", "hstore"):
        return Refusal(_TRAVEL, "arrays of this type were not proven to travel exactly")
    if schema == "pg_catalog" and name in _NUMBERS:
        return Carry(False, forms.plain_array(forms.builtin(name)), _FLAT)
    inner = _scalar(element, category, None)
    if isinstance(inner, Refusal):
        return inner
    return Carry(False, forms.array(inner.build), "; ".join(filter(None, (_FLAT, inner.note))))


def unsupported(table: Table) -> list[Unsupported]:
    """The columns of a table that stop a migration, in column order."""
    found = []
    quoted = names.table(table.name).as_string()
    for column in table.carried:
        way = carry(column)
        if isinstance(way, Refusal):
            remedy = (
                "Leave the table out (`tables.exclude`), or give the column a supported type on "
                "the source."
            )
            found.append(_about(table, column, way, remedy))
        elif (
            column.element is not None
            and table.replica_identity is not ReplicaIdentity.FULL
            and column.element.partition(".")[2] not in _UNCHANGED_ELEMENTS
        ):
            way = Refusal(
                _TOAST,
                "the connector stops at an update that leaves a long value of this type as it is",
            )
            found.append(_about(table, column, way, f"ALTER TABLE {quoted} REPLICA IDENTITY FULL"))
    return found


def _about(table: Table, column: Column, why: Refusal, remedy: str) -> Unsupported:
    return Unsupported(table.name, column.name, column.type_text, why.code, why.reason, remedy)


def notes(table: Table) -> list[tuple[str, str]]:
    """(column, note) for each supported column with a value that would arrive changed."""
    ways = ((column.name, carry(column)) for column in table.carried)
    return [(name, way.note) for name, way in ways if isinstance(way, Carry) and way.note]


def equality(column: Column) -> sql.Composable:
    """The equality operator of a key column, which an extension's type brings with it.

    Without the schema, search_path would decide: citext would be compared as text.
    """
    schema = column.base_type.partition(".")[0]
    if schema == "pg_catalog" or column.category != "b" or column.element is not None:
        return sql.SQL("=")
    return sql.SQL("OPERATOR({}.=)").format(sql.Identifier(schema))
