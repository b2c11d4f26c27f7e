"""Judge what both sides answered: numbers against tolerances. Pure; no reason holds a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from cdc_migrator.config.rules import Aggregate, Count, Freshness, Types
from cdc_migrator.config.values import duration_text
from cdc_migrator.databases.postgres.relations import Relation
from cdc_migrator.model.tolerance import Tolerance
from cdc_migrator.model.wording import few
from cdc_migrator.validate.expressions import number
from cdc_migrator.validate.known import columns_of_types
from cdc_migrator.validate.questions import Violations
from cdc_migrator.validate.results import Answer, Example, Judged, Part, Row, Side, Status

_NO_ROW = "no row"


def judged(parts: Sequence[Part], good: str, bad: str) -> Judged:
    """Passed where every part is."""
    if all(part.passed for part in parts):
        return Judged(Status.PASSED, good, tuple(parts))
    return Judged(Status.FAILED, bad, tuple(parts))


def broken(reason: str) -> Judged:
    """It cannot be judged."""
    return Judged(Status.ERROR, reason)


def counts(rule: Count, source: Answer, target: Answer, look: str) -> Judged:
    """Both sides' numbers of rows."""
    here, there = int(source.rows[0][0] or 0), int(target.rows[0][0] or 0)
    within = abs(here - there) <= rule.tolerance.of(here)
    part = Part("rows", within, str(here), str(there), look)
    told = f"{here:,} rows on the source, {there:,} on the target"
    return judged([part], told, told + _tolerated(rule.tolerance))


def violations(
    rule: Violations,
    found: Sequence[tuple[str, str, Row | None, Row | None, int]],
) -> Judged:
    """How many rows break it, of each thing that is asked.

    Args:
        found: what is asked, the statement to look closer, the row that each side returned or None,
            and where in it the number stands.
    """
    parts = []
    bad = []
    for what, look, here, there, place in found:
        broken_here, broken_there = _number(here, place), _number(there, place)
        passed = _within(rule, here, broken_here) and _within(rule, there, broken_there)
        parts.append(Part(what, passed, _shown(broken_here), _shown(broken_there), look))
        if not passed:
            sides = ((broken_here, "source"), (broken_there, "target"))
            told = [f"{count:,} on the {side}" for count, side in sides if count is not None]
            bad.append(f"{what}: {', '.join(told)}")
    asked = "rows of either side" if rule.sides == "both" else f"rows of the {rule.sides}"
    good = f"no {asked} break it"
    if any(part.source not in (None, "0") or part.target not in (None, "0") for part in parts):
        good = f"no more {asked} break it than may{_tolerated(rule.tolerance)}"
    return judged(parts, good, f"rows break it: {few(bad)}{_tolerated(rule.tolerance)}")


def _number(row: Row | None, place: int) -> int | None:
    return None if row is None else int(row[place] or 0)


def _within(rule: Violations, row: Row | None, found: int | None) -> bool:
    if row is None or found is None:
        return True
    return found <= rule.tolerance.of(int(row[0] or 0))


def _shown(count: int | None) -> str | None:
    return None if count is None else str(count)


def _tolerated(tolerance: Tolerance) -> str:
    return f" ({tolerance} tolerated)" if tolerance.amount else ""


def types(rule: Types, source: Relation, target: Relation) -> Judged:
    """Whether both sides declare the columns alike."""
    parts = []
    for name in columns_of_types(rule, source):
        here, there = source.column(name), target.column(name)
        shown = tuple(one.type_text if one else None for one in (here, there))
        parts.append(Part(name, shown[0] == shown[1], shown[0], shown[1] or "no such column"))
    bad = [f"{one.what} ({one.source}, {one.target})" for one in parts if not one.passed]
    return judged(
        parts, f"{len(parts)} columns are declared alike", f"declared otherwise: {few(bad)}"
    )


def freshness(rule: Freshness, source: Answer, target: Answer, look: str) -> Judged:
    """How old the newest row of either side is, and by how much the target's is older."""
    here, there = source.rows[0], target.rows[0]
    ages = _age(here), _age(there)
    shown = _aged(ages[0]), _aged(ages[1])
    parts = []
    bad = []
    if rule.max_age is not None:
        limit = Decimal(rule.max_age.total_seconds())
        fine = all(age is not None and age <= limit for age in ages)
        parts.append(Part("newest row", fine, *shown, look))
        if not fine:
            bad.append(f"newer than {duration_text(rule.max_age)} was asked for")
    behind: Decimal | None = None
    if here[0] is not None and there[0] is not None:
        # The same moment is no distance, and so it is where both are infinite.
        behind = Decimal(0) if here[0] == there[0] else number(here[0]) - number(there[0])
    fine = (here[0] is None and there[0] is None) or (
        behind is not None and behind <= Decimal(rule.max_behind.total_seconds())
    )
    parts.append(Part("target behind source", fine, *shown, look))
    if not fine:
        told = "only one side has any row"
        if behind is not None:
            told = f"the target's is older by {_span(behind)}"
        bad.append(told)
    told = f"newest row: {shown[0]} on the source, {shown[1]} on the target"
    return judged(parts, told, f"{told}; {'; '.join(bad)}")


def _age(row: Row) -> Decimal | None:
    return None if row[0] is None else number(row[1]) - number(row[0])


def _aged(age: Decimal | None) -> str:
    return _NO_ROW if age is None else f"{_span(age)} old"


def _span(seconds: Decimal) -> str:
    if not seconds.is_finite():
        return "endlessly"
    return f"{seconds:,.1f} s" if abs(seconds) < 600 else f"{seconds / 3600:,.1f} h"


def aggregate(rule: Aggregate, source: Answer, target: Answer, look: str, values: bool) -> Judged:
    """Both sides' results, column by column; of a set, row by row.

    Args:
        values: what is not a number may be shown, and so may rows of a set.
    """
    if len(source.columns) != len(target.columns):
        return broken(
            f"the source returns {len(source.columns)} columns, the target {len(target.columns)}"
        )
    if source.more or target.more:
        return broken("it returns too many rows: compare aggregates of them")
    if rule.key:
        return _sets(rule, source, target, look, values)
    if len(source.rows) > 1 or len(target.rows) > 1:
        return broken("it returns several rows: say in `key` which columns tell them apart")
    if not source.rows or not target.rows:
        same = len(source.rows) == len(target.rows)
        shown = (str(len(source.rows)), str(len(target.rows)))
        return judged(
            [Part("rows", same, *shown, look)], "no row on either side", "only one has a row"
        )
    parts = []
    for place, name in enumerate(source.columns):
        here, there = source.rows[0][place], target.rows[0][place]
        number_ = source.numeric[place] and target.numeric[place]
        show = number_ or values
        parts.append(
            Part(
                name,
                _same(here, there, number_, rule.tolerance),
                (here or "null") if show else None,
                (there or "null") if show else None,
                look,
            )
        )
    bad = few(part.what for part in parts if not part.passed)
    return judged(parts, "the same on both sides", f"differs in {bad}{_tolerated(rule.tolerance)}")


def _sets(rule: Aggregate, source: Answer, target: Answer, look: str, values: bool) -> Judged:
    missing = [one for one in rule.key if one not in source.columns]
    if missing:
        return broken(f"the query returns no column {few(missing)}")
    places = [source.columns.index(one) for one in rule.key]
    here, there = _by_key(source, places), _by_key(target, places)
    if len(here) != len(source.rows) or len(there) != len(target.rows):
        return broken("several rows of the result have the same key")
    examples: list[Example] = []
    differing = 0
    for key in sorted(here.keys() | there.keys(), key=lambda one: [part or "" for part in one]):
        ours, theirs = here.get(key), there.get(key)
        columns = _differing(rule, source, target, ours, theirs, places)
        if not columns and ours is not None and theirs is not None:
            continue
        differing += 1
        if values and len(examples) < rule.max_examples:
            examples.append(_example(rule, source.columns, key, columns, ours, theirs))
    shown = (str(len(here)), str(len(there)))
    part = Part("rows of the result", not differing, *shown, look, tuple(examples))
    return judged(
        [part],
        f"{len(here):,} rows, the same on both sides",
        f"{differing:,} of {len(here.keys() | there.keys()):,} rows of the result differ"
        + _tolerated(rule.tolerance),
    )


def _by_key(answer: Answer, places: Sequence[int]) -> dict[Row, Row]:
    return {tuple(row[place] for place in places): row for row in answer.rows}


def _differing(
    rule: Aggregate,
    source: Answer,
    target: Answer,
    ours: Row | None,
    theirs: Row | None,
    places: Sequence[int],
) -> tuple[str, ...]:
    if ours is None or theirs is None:
        return ()
    return tuple(
        name
        for place, name in enumerate(source.columns)
        if place not in places
        and not _same(
            ours[place],
            theirs[place],
            source.numeric[place] and target.numeric[place],
            rule.tolerance,
        )
    )


def _example(
    rule: Aggregate,
    names: Sequence[str],
    key: Row,
    columns: tuple[str, ...],
    ours: Row | None,
    theirs: Row | None,
) -> Example:
    def of(row: Row | None) -> Mapping[str, str | None]:
        return {} if row is None else dict(zip(names, row, strict=True))

    side: Side | None = None
    if ours is None or theirs is None:
        side = "target" if ours is None else "source"
    return Example(dict(zip(rule.key, key, strict=True)), side, columns, of(ours), of(theirs))


def _same(here: str | None, there: str | None, number_: bool, tolerance: Tolerance) -> bool:
    if here == there or here is None or there is None:
        return here == there
    if not number_:
        return False
    ours, theirs = Decimal(here), Decimal(there)
    if not (ours.is_finite() and theirs.is_finite()):
        return False
    return abs(ours - theirs) <= tolerance.of(ours)
