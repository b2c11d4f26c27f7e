"""Words of SQL: names, literals, and what can be read from types and defaults. Pure."""

from __future__ import annotations

import re

from cdc_migrator.model.tables import TableName


def quoted(table: TableName) -> str:
    """As SQL has it."""
    return f"{name(table.schema)}.{name(table.name)}"


def name(text: str) -> str:
    """An identifier, quoted where it must be."""
    if re.fullmatch(r"[a-z_][a-z0-9_]*", text) and text not in _WORDS:
        return text
    return '"' + text.replace('"', '""') + '"'


# Statements are for people, too, so only what may be a word of SQL is quoted.
_RESERVED = (
    "all analyse analyze and any array as asc asymmetric authorization binary both case cast "
    "check "
    "collate collation column concurrently constraint create cross current_catalog current_date "
    "current_role current_schema current_time current_timestamp current_user default deferrable "
    "desc distinct do else end except false fetch for foreign freeze from full grant group having "
    "ilike in initially inner intersect into is isnull join lateral leading left like limit "
    "localtime localtimestamp natural not notnull null offset on only or order outer overlaps "
    "placing primary references returning right select session_user similar some symmetric "
    "system_user table tablesample then to trailing true union unique user using variadic verbose "
    "when where window with"
)
_WORDS = frozenset(_RESERVED.split())


def literal(text: str) -> str:
    """A text as SQL has it."""
    escaped = text.replace("'", "''")
    return f"E'{escaped}'".replace("\\", "\\\\") if "\\" in text else f"'{escaped}'"


_CONSTANT = re.compile(
    r"\(?(NULL|true|false|[-+]?[0-9.]+(e[-+]?[0-9]+)?|'([^'\\]|'')*')\)?"
    r"(::[a-z_][a-z0-9_ .\"]*(\([0-9, ]+\))?[a-z ]*(\[\])*)*",
    re.IGNORECASE,
)


def constant(expression: str | None) -> bool:
    """Whether a default is written as one value: then both sides give rows the same."""
    return expression is not None and _CONSTANT.fullmatch(expression) is not None


def sequences(expression: str) -> list[str]:
    """The sequences that a default takes its values from, as SQL has them."""
    return re.findall(r"nextval\('((?:[^']|'')+)'::regclass\)", expression)


_WIDER = {
    "smallint": {"integer", "bigint", "numeric"},
    "integer": {"bigint", "numeric"},
    "bigint": {"numeric"},
    "real": {"double precision"},
    "text": {"character varying"},
    "character varying": {"text"},
}
_MODIFIED = re.compile(r"(character varying|numeric|bit varying)\(([0-9]+)(?:,(-?[0-9]+))?\)")


def widens(before: str, after: str) -> bool:
    """Whether every value of the one type is the same value of the other, also without asking."""
    if after in _WIDER.get(before, ()):
        return True
    old = _MODIFIED.fullmatch(before)
    if old is None:
        return False
    base, size, scale = old[1], int(old[2]), int(old[3] or 0)
    if after == base or (base == "character varying" and after == "text"):
        # An unlimited numeric keeps each value's own scale.
        return True
    new = _MODIFIED.fullmatch(after)
    if new is None or new[1] != base:
        return False
    return int(new[2]) >= size and int(new[3] or 0) == scale
