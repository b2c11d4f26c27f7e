"""A rule as the statements that each side is asked, and those to look closer. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import sql

from cdc_migrator.config.rules import (
    Aggregate,
    Allowed,
    Check,
    Count,
    Freshness,
    NotNull,
    Orphans,
    Range,
    Rule,
    Types,
    Unique,
)
from cdc_migrator.databases.postgres.relations import ForeignKey, Relation
from cdc_migrator.model.tables import Column
from cdc_migrator.validate import expressions as ex
from cdc_migrator.validate.known import Catalogs, columns_of_types, stated

Violations = NotNull | Types | Orphans | Range | Allowed | Unique | Check


@dataclass(frozen=True, slots=True)
class Asked:
    """One thing that a statement counts.

    Attributes:
        what: what it is about.
        look: the rows that break it: what names a row first, in `key` columns, then its values.
    """

    what: str
    look: sql.Composed
    key: int


@dataclass(frozen=True, slots=True)
class Question:
    """A statement that returns one row: how many rows there are, then each of `asked`."""

    statement: sql.Composed
    asked: tuple[Asked, ...]


def violations(rule: Violations, known: Catalogs, target: bool) -> list[Question]:
    """What counts the rows of a side that break the rule; the same in number for both sides."""
    on = known.on(target, rule.table)
    if isinstance(rule, Orphans):
        return [
            _orphans(rule, on, one, _referred(known, target, str(one.table)))
            for one in stated(rule, known)
        ]
    if isinstance(rule, Unique):
        return [_duplicates(rule, on)]
    conditions = list(_conditions(rule, on))
    return [_scan(rule, on, conditions)] if conditions else []


def _referred(known: Catalogs, target: bool, table: str) -> Relation:
    if table in known.source:
        return known.on(target, table)
    return known.target[table]


def _conditions(
    rule: NotNull | Types | Range | Allowed | Check, on: Relation
) -> Iterable[tuple[str, tuple[str, ...], sql.Composable]]:
    """What it is about, the columns that matter, and the condition that a row breaks it."""
    if isinstance(rule, Check):
        yield "rows", (), sql.SQL("NOT {}").format(ex.given(rule.condition))
        return
    names = columns_of_types(rule, on) if isinstance(rule, Types) else rule.columns
    for name in names:
        column = on.column(name)
        assert column is not None  # `known.wrong` has looked
        yield name, (name,), _breaks(rule, column)


def _breaks(rule: NotNull | Types | Range | Allowed, column: Column) -> sql.Composable:
    if isinstance(rule, NotNull):
        return sql.SQL("{} IS NULL").format(ex.column(column.name))
    if isinstance(rule, Range):
        return ex.outside(column, rule.min, rule.max)
    if isinstance(rule, Allowed):
        return ex.none_of(column, rule.values)
    assert rule.is_ is not None
    return ex.not_of_type(column, rule.is_)


def _scan(
    rule: NotNull | Types | Range | Allowed | Check,
    on: Relation,
    conditions: list[tuple[str, tuple[str, ...], sql.Composable]],
) -> Question:
    rows = ex.scope(on, rule.where)
    counts = [sql.SQL("count(*) FILTER (WHERE {})").format(one) for *_, one in conditions]
    asked = []
    for what, columns, condition in conditions:
        named = ex.address(on)
        shown = [ex.column(one) for one in columns if one not in on.key]
        look = sql.SQL("SELECT {} FROM {} WHERE {}").format(
            ex.comma([*named, *shown]), rows, condition
        )
        asked.append(Asked(what, look, len(named)))
    return Question(
        sql.SQL("SELECT {} FROM {}").format(ex.comma([sql.SQL("count(*)"), *counts]), rows),
        tuple(asked),
    )


def _orphans(
    rule: Orphans,
    on: Relation,
    key: ForeignKey,
    other: Relation,
) -> Question:
    columns, referenced = key.columns, key.referenced
    rows = ex.scope(on, rule.where)
    condition = ex.unmatched(columns, other, referenced)
    named = ex.address(on)
    shown = [ex.column(one) for one in columns if one not in on.key]
    look = sql.SQL("SELECT {} FROM {} WHERE {}").format(ex.comma([*named, *shown]), rows, condition)
    # Counting them apart lets the planner join; it matters only to a share.
    whole: sql.Composable = sql.SQL("NULL")
    if rule.tolerance.percent:
        whole = sql.SQL("(SELECT count(*) FROM {})").format(rows)
    statement = sql.SQL("SELECT {}, count(*) FROM {} WHERE {}").format(whole, rows, condition)
    what = f"{', '.join(columns)} → {other.name} ({', '.join(referenced)})"
    return Question(statement, (Asked(what, look, len(named)),))


def _duplicates(rule: Unique, on: Relation) -> Question:
    columns = ex.comma(map(ex.column, rule.columns))
    grouped = sql.SQL("FROM {} WHERE {} GROUP BY {}").format(
        ex.scope(on, rule.where), ex.filled(rule.columns), columns
    )
    statement = sql.SQL(
        "SELECT coalesce(sum(n), 0), coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n {}) AS g"
    ).format(grouped)
    look = sql.SQL("SELECT {}, count(*) {} HAVING count(*) > 1").format(columns, grouped)
    return Question(statement, (Asked(", ".join(rule.columns), look, len(rule.columns)),))


def counted(rule: Count, known: Catalogs, target: bool) -> sql.Composed:
    """How many rows a side has."""
    on = known.on(target, rule.table)
    return sql.SQL("SELECT count(*) FROM {}").format(ex.scope(on, rule.where))


def newest(rule: Freshness, known: Catalogs, target: bool) -> sql.Composed:
    """The newest row's moment, and the server's, in seconds since 1970."""
    on = known.on(target, rule.table)
    return sql.SQL(
        "SELECT extract(epoch FROM max({}::timestamptz)), extract(epoch FROM clock_timestamp()) "
        "FROM {}"
    ).format(ex.column(rule.column), ex.scope(on, rule.where))


def latest(rule: Freshness, known: Catalogs, target: bool) -> sql.Composed:
    """The newest rows, for a person."""
    on = known.on(target, rule.table)
    at = ex.column(rule.column)
    return sql.SQL("SELECT {} FROM {} WHERE {} IS NOT NULL ORDER BY {} DESC").format(
        ex.comma([*ex.address(on), at]), ex.scope(on, rule.where), at, at
    )


def aggregate(rule: Aggregate, target: bool) -> sql.Composed:
    """The user's query for a side."""
    own = rule.target_sql if target else rule.source_sql
    query = (rule.sql or own or "").strip().rstrip(";")
    return sql.Composed([sql.SQL(query)])


_TOLD = {
    "count": "as many rows on both sides",
    "not_null": "has a value",
    "type": "is of its type",
    "orphans": "refers to rows that are there",
    "range": "lies",
    "allowed": "has one of the allowed values",
    "unique": "is unique",
    "check": "holds of every row",
    "aggregate": "a query returns the same on both sides",
    "freshness": "is recent",
    "spot": "some rows are the same, field by field",
}


def told(rule: Rule) -> str:
    """What a rule asks, in one line."""
    columns = getattr(rule, "columns", ())
    about = ", ".join(columns) or str(getattr(rule, "column", ""))
    if len(columns) > 1:
        about = f"{about} together" if isinstance(rule, Unique) else f"each of {about}"
    words = _TOLD[rule.kind]
    if isinstance(rule, Range):
        ends = [("from", rule.min), ("to", rule.max)]
        words += "".join(f" {word} {end}" for word, end in ends if end is not None)
    elif isinstance(rule, Check):
        about = f"({rule.condition})"
    elif isinstance(rule, Types) and rule.is_ is not None:
        words = f"reads as {rule.is_}"
    elif isinstance(rule, Orphans) and rule.references is None:
        about = "each foreign key"
    where: str | None = getattr(rule, "where", None)
    asked = f"{about} {words}".strip()
    return f"{asked}, where {where}" if where else asked
