"""SQL expressions that stand for rows: a hash to compare, a digest to name, texts to look at. Pure.

Two rows are equal when the text of every column is, under the settings that every session of the
service has. A column is hashed in its own form only where that form tells apart whatever its text
tells apart; the server's hash functions often do not:

* of int8, and of what is stored as one, they take only the two halves' exclusive or (-1 is
  4294967295), so the upper half is hashed once more, and timestamps go by their eight bytes;
* of numeric they take neither sign nor scale, so the sign is hashed first, and where the type does
  not fix the scale, the text; of floats, intervals, jsonb and arrays the text as well;
* of an enum they take the object id, which differs between servers.

A row's hash is a chain: each column that is never null is hashed with the hash so far as its seed,
so that it depends on every pair of values together, and values that are swapped between columns or
between rows change every sum. (``hash_record_extended`` is linear in its columns: over two rows
that swap a value, its sum stays as it was.) Columns that may be null begin the chain, each hashed
under a seed of its own, combined by exclusive or; null counts as 0. Seeds are never 0 or 1, at
which some values hash like null.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg import sql

from cdc_migrator.databases.postgres import names
from cdc_migrator.databases.postgres.mapped import text_of
from cdc_migrator.databases.postgres.types import equality
from cdc_migrator.model.tables import Column
from cdc_migrator.reconcile.pairs import Compared, Pair

# Template of a column {c} and a seed {s}, and the function of the newest servers that it needs.
_TEXT = 'hashtextextended({c}::text COLLATE "C", {s})'
RAW: dict[str, tuple[str, str | None]] = {
    "int2": ("hashint2extended({c}, {s})", None),
    "int4": ("hashint4extended({c}, {s})", None),
    "int8": ("hashint8extended({c} >> 32, hashint8extended({c}, {s}))", None),
    "oid": ("hashoidextended({c}, {s})", None),
    "bool": ("hashint4extended({c}::int4, {s})", None),
    "uuid": ("uuid_hash_extended({c}, {s})", None),
    "text": (_TEXT, None),
    "varchar": (_TEXT, None),
    "numeric": ("hash_numeric_extended({c}, hashint4extended(({c} < 0)::int4, {s}))", None),
    "bytea": ("hashbyteaextended({c}, {s})", "hashbyteaextended"),
    "date": ("hashdateextended({c}, {s})", "hashdateextended"),
    "timestamp": ("hashbyteaextended(timestamp_send({c}), {s})", "hashbyteaextended"),
    "timestamptz": ("hashbyteaextended(timestamptz_send({c}), {s})", "hashbyteaextended"),
}
# The same for servers without that function.
_BY_RECORD = {
    "bytea": "hash_record_extended(ROW({c}), {s})",
    "date": "hash_record_extended(ROW({c}), {s})",
    "timestamp": "hash_record_extended(ROW(timestamp_send({c})), {s})",
    "timestamptz": "hash_record_extended(ROW(timestamptz_send({c})), {s})",
}
NEWER_FUNCTIONS = frozenset(function for _, function in RAW.values() if function)

# Built-in types whose cast to text is not what they are written as.
_ODD_CASTS = frozenset({"bool", "bpchar", "char", "name", "inet", "cidr", "xml"})
_FIRST_SEED = 0x5EED


@dataclass(frozen=True, slots=True)
class Hashing:
    """What both servers agree on; see `probe`.

    Attributes:
        raw: the types of `RAW` that may be hashed in their own form.
        functions: those of `NEWER_FUNCTIONS` that both servers have.
        by_server: False: nothing of the server's hashing agrees, md5 of the text is all.
    """

    raw: frozenset[str] = frozenset(RAW)
    functions: frozenset[str] = NEWER_FUNCTIONS
    by_server: bool = True

    def slower(self) -> Hashing:
        """The next safer way: text, then md5."""
        return Hashing(frozenset(), self.functions, by_server=bool(self.raw))


def raw_template(name: str, functions: frozenset[str]) -> str:
    """How a built-in type of this name is hashed in its own form."""
    template, needs = RAW[name]
    return template if needs is None or needs in functions else _BY_RECORD[name]


def _quick_text(column: Column, same_type: bool) -> sql.Composable:
    """A text that is equal where the written one is."""
    schema, _, name = column.base_type.partition(".")
    value = sql.Identifier(column.name)
    plain = schema == "pg_catalog" and not (name in _ODD_CASTS and not same_type)
    if plain or column.category in "e" or column.element is not None:
        return sql.SQL("{}::text").format(value)
    return text_of(value)


def row_hash(columns: Sequence[Compared], target: bool, hashing: Hashing) -> sql.Composable:
    """An int8 that is equal where all the columns' texts are, and practically nowhere else."""
    if not hashing.by_server:
        texts = _comma(text_of(sql.Identifier(c.on(target).name)) for c in columns)
        return _first_bits(sql.SQL("ROW({})::text").format(texts))
    nullable = [c for c in columns if not c.never_null]
    chained = _chain(
        [c for c in columns if c.never_null], target, hashing, _scattered(nullable, target, hashing)
    )
    if len(nullable) == len(columns):
        return chained
    # A column may be declared NOT NULL and hold nulls: the constraint was added NOT VALID.
    return sql.SQL("coalesce({}, {})").format(chained, _mixed(_scattered(columns, target, hashing)))


def mixed(value: sql.Composable, hashing: Hashing) -> sql.Composable:
    """A second int8 of a row's hash, for an aggregate that is independent of the first one's."""
    if hashing.by_server:
        return _mixed(value)
    return _first_bits(sql.SQL("{}::text").format(value))


def _mixed(value: sql.Composable) -> sql.Composable:
    return sql.SQL("hashint4extended(1, {})").format(value)


def _first_bits(text: sql.Composable) -> sql.Composable:
    return sql.SQL("('x' || left(md5({}), 16))::bit(64)::int8").format(text)


def _chain(
    columns: Sequence[Compared], target: bool, hashing: Hashing, seed: sql.Composable
) -> sql.Composable:
    if not columns:
        return _mixed(seed)
    for column in reversed(columns):
        seed = _hash(column, target, hashing, seed)
    return seed


def _scattered(columns: Sequence[Compared], target: bool, hashing: Hashing) -> sql.Composable:
    """One value of columns that may be null: each hashed under its own seed, null as 0."""
    if not columns:
        return sql.Literal(_FIRST_SEED)
    return sql.SQL("({})").format(
        sql.SQL(" # ").join(
            sql.SQL("coalesce({}, 0)").format(
                _hash(column, target, hashing, sql.Literal(_FIRST_SEED + 1 + place))
            )
            for place, column in enumerate(columns)
        )
    )


def _hash(column: Compared, target: bool, hashing: Hashing, seed: sql.Composable) -> sql.Composable:
    own = column.on(target)
    name = own.base_type.removeprefix("pg_catalog.")
    if name in hashing.raw and column.same_type and (name != "numeric" or _same_scale(column)):
        value: sql.Composable = sql.Identifier(own.name)
        return sql.SQL(raw_template(name, hashing.functions)).format(c=value, s=seed)
    text = _quick_text(own, own.type_text == column.on(not target).type_text)
    return sql.SQL('hashtextextended({} COLLATE "C", {})').format(text, seed)


def _same_scale(column: Compared) -> bool:
    """Whether the type says how many places the text of a numeric has, the same on both sides."""
    declared = column.source.type_text
    return declared.startswith("numeric(") and declared == column.target.type_text


def key_hash(pair: Pair, target: bool, hashing: Hashing) -> sql.Composable:
    """An int8 of the key alone."""
    return row_hash(pair.key, target, hashing)


def row_digest(pair: Pair, target: bool, alias: str | None = None) -> sql.Composable:
    """The name of a row by its content: 32 hex digits of all compared columns' texts."""
    texts = _comma(text_of(_column(c.on(target).name, alias)) for c in pair.columns)
    return sql.SQL("md5(ROW({})::text)").format(texts)


def texts(columns: Iterable[Column], alias: str | None = None) -> sql.Composable:
    """Each column's text, comma-separated."""
    return _comma(text_of(_column(column.name, alias)) for column in columns)


def wanted_keys(columns: Sequence[Column], keys: Sequence[tuple[str, ...]]) -> sql.Composable:
    """The keys as a row source ``w (k0, k1, …)`` of texts."""
    return sql.SQL("unnest({}) AS w ({})").format(
        _comma(
            sql.SQL("{}::text[]").format(sql.Literal([key[place] for key in keys]))
            for place in range(len(columns))
        ),
        _comma(sql.Identifier(f"k{place}") for place in range(len(columns))),
    )


def same_key(columns: Sequence[Column], alias: str) -> sql.Composable:
    """Typed comparison of the columns with ``w``, so that the key's index serves it."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} {} {}::{}").format(
            sql.Identifier(alias, column.name),
            equality(column),
            sql.Identifier("w", f"k{i}"),
            bare_type(column),
        )
        for i, column in enumerate(columns)
    )


def bare_type(column: Column) -> sql.Composable:
    """The type without length or scale, to which a text is cast; arrays by their full name."""
    schema, _, name = column.base_type.partition(".")
    if schema == "pg_catalog" and column.element is None:
        return sql.Identifier(schema, name)
    return names.type_name(column.type_text)


def _column(name: str, alias: str | None) -> sql.Identifier:
    return sql.Identifier(alias, name) if alias else sql.Identifier(name)


def _comma(parts: Iterable[sql.Composable]) -> sql.Composable:
    return sql.SQL(", ").join(parts)
