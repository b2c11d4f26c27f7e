"""The table of types: how the values of each type travel.

Most travel in the connector's event, in a form that was captured from it under this service's
settings. What the connector drops or distorts, and what was never seen to arrive exactly,
travels beside the event, as the source's own text: see `side`.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from cdc_migrator.databases.postgres import forms, names
from cdc_migrator.model.tables import Column, Straight


@dataclass(frozen=True, slots=True)
class InEvent:
    """A column whose values are in the events.

    Attributes:
        json_string: the event holds a JSON string, whose decoded text is staged; otherwise the
            raw JSON text of the value (number, boolean, object, array) is.
        build: SQL of the staged text to SQL of a value of the column's base type.
        odd: SQL of the column to SQL of a condition; a value that meets it is distorted in the
            event and travels beside it as well, which wins. `build` reads both forms.
        reason: what happens to odd values in the event.
    """

    json_string: bool
    build: forms.Builder
    odd: forms.Builder | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Beside:
    """A column whose values travel beside the events, as PostgreSQL's text form.

    Attributes:
        build: SQL of the staged text to SQL of a value of the column's type.
        reason: why they are not in the events.
    """

    build: forms.Builder
    reason: str


Way = InEvent | Beside

# fmt: off
_STRINGS = (
    "uuid", "json", "jsonb", "inet", "cidr", "macaddr", "macaddr8", "tsvector", "name",
    "char", "int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange",
)
_BASE64_TEXTS = (
    "pg_lsn", "xid", "xid8", "tsquery", "jsonpath", "txid_snapshot", "pg_snapshot",
    "int4multirange", "int8multirange", "nummultirange", "tsmultirange", "tstzmultirange",
    "datemultirange",
)
# fmt: on
_NUMBERS = ("bool", "int2", "int4", "int8", "oid")


def _builtin_types() -> dict[str, InEvent]:
    cast = {name: forms.cast(forms.builtin(name)) for name in (*_STRINGS, *_NUMBERS, "bpchar")}
    known = {name: InEvent(True, cast[name]) for name in _STRINGS}
    known |= {name: InEvent(False, cast[name]) for name in _NUMBERS}
    known |= {
        name: InEvent(True, forms.from_base64_text(forms.builtin(name))) for name in _BASE64_TEXTS
    }
    return known | {
        "float4": InEvent(False, forms.cast(forms.builtin("float4"))),
        "float8": InEvent(False, forms.cast(forms.builtin("float8"))),
        "numeric": InEvent(True, forms.numeric),
        "text": InEvent(True, forms.text),
        "varchar": InEvent(True, forms.text),
        # Without a cast, comparing char(n) with text would strip the padding and miss the index.
        "bpchar": InEvent(True, cast["bpchar"]),
        "bytea": InEvent(True, forms.bytea),
        "date": InEvent(True, forms.calendar("date")),
        "timestamp": InEvent(True, forms.calendar("timestamp")),
        "timestamptz": InEvent(True, forms.calendar("timestamptz")),
        "time": InEvent(
            True, forms.cast(forms.builtin("time")), forms.midnight, "24:00:00 arrives as 00:00:00"
        ),
        "point": InEvent(False, forms.point),
        "line": InEvent(False, forms.line),
        "circle": InEvent(False, forms.circle),
    }


_BUILTIN = _builtin_types()

_SESSION = "the connector's own session decides how it is spelled"
_REASONS = {
    "money": _SESSION,
    "varbit": "the connector drops its length and leading zeros",
    "bit": "the connector stops at an update that leaves a long one as it is",
    "timetz": "the connector drops its offset",
    "interval": "the connector stops at long and infinite ones",
}
_UNSEEN = "its form in the connector's events was not shown to be exact"
_ODD_ARRAY = "several dimensions, or a lower bound other than 1, are lost in the event"

# Elements whose array arrives exactly while it has one dimension that starts at 1, also where
# an update leaves the stored-aside value alone: the connector stops at such an update of other
# arrays, and leaves the arrays of some types out.
_FLAT_ARRAYS = ("text", "varchar", "bpchar", "json", "jsonb", "int4", "int8", "uuid")
# Values of up to 24 bytes are never stored out of line; an update that leaves a longer bit(n) there
# as it is stops the connector.
_INLINE_BITS = 128
_EXTENSION_STRINGS = ("citext", "ltree")


def way(column: Column) -> Way:
    """How this column's values travel."""
    if "." in column.base_type.partition(".")[2]:
        return _beside(column, "a dot in the name of its schema or type")
    if column.element is not None:
        return _array(column, column.element)
    return _scalar(column)


def _beside(column: Column, reason: str) -> Beside:
    return Beside(forms.cast(names.type_name(column.type_text)), reason)


def _scalar(column: Column) -> Way:
    schema, _, name = column.base_type.partition(".")
    if schema == "pg_catalog" and name == "bit" and 0 < (column.length or 0) <= _INLINE_BITS:
        assert column.length is not None
        if column.length == 1:
            return InEvent(False, forms.one_bit)
        return InEvent(True, forms.bits(column.length))
    if schema == "pg_catalog":
        if name.startswith("reg"):
            return _beside(column, _SESSION)
        return _BUILTIN.get(name) or _beside(column, _REASONS.get(name, _UNSEEN))
    if column.category == "e":
        return InEvent(True, forms.cast(sql.Identifier(schema, name)))
    if column.category == "c":
        return _beside(column, _SESSION)
    if name in _EXTENSION_STRINGS:
        return InEvent(True, forms.cast(sql.Identifier(schema, name)))
    if name == "hstore":
        return InEvent(True, forms.hstore(schema))
    return _beside(column, _UNSEEN)


def _array(column: Column, element: str) -> Way:
    schema, _, name = element.partition(".")
    if schema != "pg_catalog" or name not in _FLAT_ARRAYS or not column.type_text.endswith("[]"):
        return _beside(column, _UNSEEN)
    to = forms.builtin(name)
    flat = forms.plain_array(to) if name in _NUMBERS else forms.array(_BUILTIN[name].build)
    return InEvent(False, forms.either_array(flat, to), forms.odd_array, _ODD_ARRAY)


_STRAIGHT = {
    **dict.fromkeys(_NUMBERS, Straight.ANY),
    **dict.fromkeys(("float4", "float8", "uuid", "json", "jsonb", "inet", "cidr"), Straight.ANY),
    **dict.fromkeys(("text", "varchar", "bpchar"), Straight.ANY),
    **dict.fromkeys(("date", "timestamp", "timestamptz"), Straight.CALENDAR),
    "numeric": Straight.NUMBER,
}


def straight(column: Column) -> Straight:
    """Which of a column's texts in events its type's input function reads as `way` does."""
    how = way(column)
    if not isinstance(how, InEvent) or how.odd is not None or column.element is not None:
        return Straight.NONE
    if column.category == "e":
        return Straight.ANY
    schema, _, name = column.base_type.partition(".")
    return _STRAIGHT.get(name, Straight.NONE) if schema == "pg_catalog" else Straight.NONE


def equality(column: Column) -> sql.Composable:
    """The equality operator of a key column, which an extension's type brings with it.

    Without the schema, search_path would decide: citext would be compared as text.
    """
    schema = column.base_type.partition(".")[0]
    if schema == "pg_catalog" or column.category != "b" or column.element is not None:
        return sql.SQL("=")
    return sql.SQL("OPERATOR({}.=)").format(sql.Identifier(schema))
