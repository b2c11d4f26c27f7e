"""What the rows of a table are like: extremes of numbers and moments, the values of texts with few.

Reads each table about once; what is proposed from it is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import names
from cdc_migrator.databases.postgres.relations import Relation
from cdc_migrator.validate import expressions as ex
from cdc_migrator.validate.reading import Reader

FEW = 20  # values of a text that may be listed
_LEAST = 20  # rows of a table whose values say anything
_LONGEST = 60  # of such a value
_SMALL = 100_000  # rows of a table that is looked at also where it was never analysed


@dataclass(frozen=True, slots=True)
class Profile:
    """Of one table, as it is now.

    Attributes:
        rows: how many.
        extremes: lowest and highest value of columns of numbers and moments, as text, where they
            have any.
        values: all values of texts that have few.
        ages: seconds since the newest of a column of moments; negative: it lies ahead.
    """

    rows: int
    extremes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ages: Mapping[str, float] = field(default_factory=dict)


_DISTINCT = """
SELECT attname, n_distinct FROM pg_stats WHERE schemaname = %s AND tablename = %s
"""


def distinct(conn: psycopg.Connection, of: Relation) -> dict[str, float]:
    """How many values each column has, by statistics; negative: as a share of the rows."""
    return dict(conn.execute(_DISTINCT, (of.name.schema, of.name.name)).fetchall())


def read(reader: Reader, of: Relation, distinct: Mapping[str, float]) -> Profile:
    """Look at the rows, within `Reader.under`. Raises MigratorError."""
    measured = [one for one in of.columns if one.base_type in ex.NUMBERS | ex.MOMENTS]
    wanted: list[sql.Composable] = [sql.SQL("count(*)")]
    for one in measured:
        name = sql.Identifier(one.name)
        wanted += [sql.SQL("min({})").format(name), sql.SQL("max({})").format(name)]
        age = sql.SQL("extract(epoch FROM clock_timestamp() - max({})::timestamptz)").format(name)
        wanted.append(age if one.base_type in ex.MOMENTS else sql.SQL("NULL"))
    answer = reader.ask(
        sql.SQL("SELECT {} FROM {}").format(ex.comma(wanted), names.table(of.name)), 1
    )
    (first, *rest) = answer.rows[0]
    rows = int(first or 0)
    extremes, ages = {}, {}
    for place, one in enumerate(measured):
        low, high, age_ = rest[3 * place : 3 * place + 3]
        if low is None or high is None:
            continue
        extremes[one.name] = (low, high)
        if age_ is not None:
            ages[one.name] = float(age_)
    values = {}
    for one in of.columns:
        if one.base_type in ex.TEXTS and _few(distinct.get(one.name), rows):
            found = _values(reader, of, one.name)
            if found is not None:
                values[one.name] = found
    return Profile(rows, extremes, values, ages)


def _few(known: float | None, rows: int) -> bool:
    """Whether a column may have few values, and many rows for each."""
    if rows < _LEAST:
        return False
    if known is None:
        return rows <= _SMALL
    return 0 < known <= FEW


def _values(reader: Reader, of: Relation, column: str) -> tuple[str, ...] | None:
    name = sql.Identifier(column)
    query = sql.SQL("SELECT {0}::text, count(*) FROM {1} WHERE {0} IS NOT NULL GROUP BY 1")
    answer = reader.ask(query.format(name, names.table(of.name)), FEW)
    if answer.more or not answer.rows:
        return None
    counts = [int(count or 0) for _, count in answer.rows]
    texts = sorted(value or "" for value, _ in answer.rows)
    # A value that is there once or twice is one of many to come, not one of few.
    if sum(counts) < 10 * len(counts) or max(map(len, texts)) > _LONGEST:
        return None
    return tuple(texts)
