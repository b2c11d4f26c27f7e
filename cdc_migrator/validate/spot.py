"""Spot checks: which rows are looked at, how they are fetched, and where they differ. Pure.

Rows are chosen on both sides, so that one which only the target has can be met, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from psycopg import sql

from cdc_migrator.config.rules import Spot
from cdc_migrator.databases.postgres import names
from cdc_migrator.databases.postgres.relations import Relation
from cdc_migrator.databases.postgres.types import equality
from cdc_migrator.model.tables import Column
from cdc_migrator.model.wording import few
from cdc_migrator.validate import expressions as ex
from cdc_migrator.validate.judge import judged
from cdc_migrator.validate.results import Answer, Example, Judged, Part, Row

_EDGED = ex.NUMBERS | ex.MOMENTS
# So many more rows are drawn than are wanted, for blocks are drawn, not rows.
_GENEROUS = 20


def picks(rule: Spot, on: Relation) -> sql.Composed | None:
    """The keys of the rows that this side chooses, as texts; None where it chooses none."""
    chosen: list[sql.Composable] = []
    if rule.edges:
        chosen += _edges(rule, on)
    if rule.recent is not None and rule.by is not None:
        chosen.append(_recent(rule, on))
    if rule.random:
        chosen.append(_random(rule, on))
    return sql.SQL(" UNION ").join(chosen) if chosen else None


def _keys(on: Relation) -> sql.Composed:
    return ex.comma(ex.column(one) for one in on.key)


def _picked(on: Relation, rows: sql.Composable, behind: sql.Composable) -> sql.Composed:
    """Texts of keys, so that both servers' choices can be put together."""
    texts = ex.comma(
        sql.SQL("{}::text AS {}").format(sql.Identifier(one), sql.Identifier(f"k{place}"))
        for place, one in enumerate(on.key)
    )
    return sql.SQL("(SELECT {} FROM (SELECT {} FROM {} {}) AS p)").format(
        texts, _keys(on), rows, behind
    )


def _edges(rule: Spot, on: Relation) -> Iterable[sql.Composed]:
    rows = ex.scope(on, rule.where)
    for way in ("ASC", "DESC"):
        by_key = ex.comma(sql.SQL("{} {}").format(ex.column(one), sql.SQL(way)) for one in on.key)
        yield _picked(on, rows, sql.SQL("ORDER BY {} LIMIT 1").format(by_key))
        for column in on.columns:
            if column.base_type in _EDGED and on.key != (column.name,):
                at = ex.column(column.name)
                yield _picked(
                    on,
                    rows,
                    sql.SQL("WHERE {} IS NOT NULL ORDER BY {} {} LIMIT 1").format(
                        at, at, sql.SQL(way)
                    ),
                )


def _recent(rule: Spot, on: Relation) -> sql.Composed:
    assert rule.recent is not None
    assert rule.by is not None
    at = ex.column(rule.by)
    behind = sql.SQL("WHERE {} >= clock_timestamp() - {}::interval ORDER BY {} DESC LIMIT {}")
    span = sql.Literal(f"{rule.recent.total_seconds()} seconds")
    return _picked(
        on,
        ex.scope(on, rule.where),
        behind.format(at, span, at, sql.Literal(rule.most_recent)),
    )


def _random(rule: Spot, on: Relation) -> sql.Composed:
    rows: sql.Composable = ex.scope(on, rule.where)
    share = 100.0 * _GENEROUS * rule.random / on.rows if on.rows else 100.0
    behind = sql.SQL("ORDER BY random() LIMIT {}").format(sql.Literal(rule.random))
    if share < 100 and on.made is not None:
        behind = sql.SQL("WHERE random() < {} {}").format(sql.Literal(share / 100), behind)
    elif share < 100 and rule.where is None:
        rows = sql.SQL("{} AS t TABLESAMPLE SYSTEM ({})").format(
            names.table(on.name), sql.Literal(round(share, 6))
        )
    return _picked(on, rows, behind)


def named(rule: Spot) -> list[Row]:
    """The keys that the rule names."""
    return [
        tuple(ex.plain(part) for part in (key if isinstance(key, tuple) else (key,)))
        for key in rule.keys
    ]


def compared(source: Relation, target: Relation) -> list[str]:
    """The columns that are looked at: those of both sides, the key's first."""
    others = [
        one.name
        for one in source.columns
        if one.name not in source.key and target.column(one.name) is not None
    ]
    return [*source.key, *others]


def fetch(on: Relation, columns: Sequence[str], keys: Sequence[Row]) -> sql.Composed:
    """The rows of these keys."""
    key = [_column(on, name) for name in columns[: len(keys[0])]]
    wanted = ex.comma(
        sql.SQL("{}::text[]").format(sql.Literal([row[place] for row in keys]))
        for place in range(len(key))
    )
    same = ex.all_of(
        sql.SQL("{} {} {}::{}").format(
            ex.column(one.name),
            equality(one),
            sql.Identifier("w", f"k{place}"),
            ex.bare(one.base_type),
        )
        for place, one in enumerate(key)
    )
    return sql.SQL("SELECT {} FROM unnest({}) AS w ({}) JOIN {} AS t ON {}").format(
        ex.comma(map(ex.column, columns)),
        wanted,
        ex.comma(sql.Identifier(f"k{place}") for place in range(len(key))),
        on.from_,
        same,
    )


def _column(on: Relation, name: str) -> Column:
    found = on.column(name)
    assert found is not None  # a column of its key, or of both sides
    return found


def look(on: Relation, columns: Sequence[str], key: Sequence[str]) -> str:
    """A statement for one row, whose key is to be filled in."""
    where = ex.all_of(
        sql.SQL("{} = {}").format(ex.column(name), sql.SQL(f"${place}"))
        for place, name in enumerate(key, 1)
    )
    return ex.text(
        sql.SQL("SELECT {} FROM {} AS t WHERE {}").format(
            ex.comma(map(ex.column, columns)), on.from_, where
        )
    )


def judge(
    rule: Spot,
    columns: Sequence[str],
    key: int,
    sides: tuple[Answer, Answer],
    look: str,
    values: bool,
) -> Judged:
    """Field by field.

    Args:
        columns: as fetched, `key` of them the key's.
        values: rows may be named.
    """
    here, there = ({row[:key]: row for row in one.rows} for one in sides)
    found: dict[str, list[Example]] = {"missing on the target": [], "missing on the source": []}
    different: list[Example] = []
    fields: dict[str, int] = {}
    for which in sorted(here.keys() | there.keys(), key=lambda one: [part or "" for part in one]):
        ours, theirs = here.get(which), there.get(which)
        named_ = dict(zip(columns[:key], which, strict=True))
        if ours is None:
            found["missing on the source"].append(Example(named_, "target"))
        elif theirs is None:
            found["missing on the target"].append(Example(named_, "source"))
        elif ours != theirs:
            example = _different(named_, columns, ours, theirs)
            different.append(example)
            for name in example.columns:
                fields[name] = fields.get(name, 0) + 1
    whole = len(here.keys() | there.keys())
    wrong = len(different) + sum(map(len, found.values()))
    within = wrong <= rule.tolerance.of(whole)
    numbers = (str(len(here)), str(len(there)))
    parts = [Part("rows looked at", True, *numbers)]
    for what, examples in (*found.items(), ("different", different)):
        if examples:
            shown = tuple(examples[: rule.max_examples]) if values else ()
            parts.append(Part(what, within, *_where(what, len(examples)), look, shown))
    tolerated = f" ({rule.tolerance} tolerated)" if rule.tolerance.amount else ""
    told = [f"{len(one)} {what}" for what, one in found.items() if one]
    if different:
        told.append(f"{len(different)} different in {few(sorted(fields))}")
    good = f"{whole:,} rows are the same"
    if wrong:
        good = f"{whole - wrong:,} of {whole:,} rows are the same{tolerated}"
    return judged(parts, good, f"of {whole:,} rows {', '.join(told)}{tolerated}")


def _where(what: str, count: int) -> tuple[str | None, str | None]:
    if what == "missing on the target":
        return str(count), "0"
    if what == "missing on the source":
        return "0", str(count)
    return str(count), str(count)


def _different(
    key: Mapping[str, str | None], columns: Sequence[str], ours: Row, theirs: Row
) -> Example:
    differing = tuple(name for place, name in enumerate(columns) if ours[place] != theirs[place])
    return Example(
        key,
        None,
        differing,
        {name: ours[columns.index(name)] for name in differing},
        {name: theirs[columns.index(name)] for name in differing},
    )
