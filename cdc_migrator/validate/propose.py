"""The rules that `validate init` writes: from the catalog what must hold, from rows what seems to.

Pure: facts in, commented YAML out. Bounds are wider than what was found, so that a rule is not
broken by the next row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from cdc_migrator.databases.postgres.relations import Relation
from cdc_migrator.validate.expressions import MOMENTS, NUMBERS
from cdc_migrator.validate.profile import Profile

_FRESH_SECONDS = 86400.0
_HEAD = """\
# Rules that the rows of both sides must keep, as `cdc-migrator validate init` has found them.
# Check them with `cdc-migrator validate --rules FILE`, and name the file in migration.yaml:
#
#   validate:
#     file: FILE
#
# severity: blocker (the default) stands against leaving the source, warning and info are only told.
# What comes from the catalog is a blocker; what the rows seem to be like is a warning: look at it,
# since a value that was never there may come tomorrow. docs/validate.md has every kind and field.
#
# A query of your own that must return the same on both sides:
#
#   - kind: aggregate
#     name: revenue by month
#     table: shop.orders
#     sql: SELECT date_trunc('month', placed_at) AS month, sum(total) FROM shop.orders GROUP BY 1
#     key: [month]
#     tolerance: 0.01%
"""


@dataclass(frozen=True, slots=True)
class Proposal:
    """One rule, its fields in the order in which they are written; `why`: a comment."""

    fields: dict[str, Any]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A table and its rows; `profile` is None where they could not be looked at, for `reason`."""

    table: Relation
    profile: Profile | None
    reason: str = ""


def text(found: Sequence[Found]) -> str:
    """The whole file."""
    lines = [_HEAD, "rules:" if found else "rules: []"]
    for one in found:
        rows = f"{one.profile.rows:,} rows" if one.profile else f"rows not looked at: {one.reason}"
        lines += ["", f"  # {_plain(str(one.table.name))}: {_plain(rows)}"]
        for proposal in proposals(one):
            lines += _written(proposal)
    return "\n".join(lines) + "\n"


def _written(proposal: Proposal) -> Iterator[str]:
    if proposal.why:
        yield f"  # {_plain(proposal.why)}"
    for place, (key, value) in enumerate(proposal.fields.items()):
        shown = value if key == "kind" else json.dumps(value, ensure_ascii=False)
        yield f"  {'-' if not place else ' '} {key}: {shown}"


def proposals(found: Found) -> Iterator[Proposal]:
    """Of one table: the catalog's first."""
    yield from _from_catalog(found.table)
    if found.profile is not None and found.profile.rows:
        yield from _from_rows(found.table, found.profile)


def _from_catalog(on: Relation) -> Iterator[Proposal]:
    table = {"table": str(on.name)}
    yield Proposal({"kind": "count", **table})
    yield Proposal({"kind": "type", **table})
    if needed := [one.name for one in on.columns if one.not_null]:
        yield Proposal({"kind": "not_null", **table, "columns": needed})
    for columns in dict.fromkeys((*([on.key] if on.key else []), *on.unique)):
        yield Proposal({"kind": "unique", **table, "columns": list(columns)})
    if on.foreign_keys:
        named = ", ".join(f"({', '.join(one.columns)})" for one in on.foreign_keys)
        yield Proposal({"kind": "orphans", **table}, f"declared: {named}")
    for column, labels in on.labels.items():
        if labels:
            yield Proposal(
                {"kind": "allowed", **table, "columns": [column], "values": list(labels)}
            )
    for name, condition in on.checks:
        yield Proposal(
            {"kind": "check", "name": f"{on.name} {name}", **table, "condition": condition}
        )


def _from_rows(on: Relation, profile: Profile) -> Iterator[Proposal]:
    table = {"table": str(on.name), "severity": "warning"}
    numbered = {*on.key, *(name for one in on.foreign_keys for name in one.columns)}
    for name, (low, high) in profile.extremes.items():
        column = on.column(name)
        if column is None or name in numbered or column.identity:
            continue
        bounds = None
        if column.base_type in NUMBERS:
            bounds = _around(low, high)
        elif column.base_type in MOMENTS:
            bounds = _years(low, high, profile.ages.get(name))
        if bounds is not None:
            yield Proposal(
                {"kind": "range", **table, "columns": [name], "min": bounds[0], "max": bounds[1]},
                "wider than what was found",
            )
    for name, values in profile.values.items():
        yield Proposal(
            {"kind": "allowed", **table, "columns": [name], "values": list(values)},
            "all that was found",
        )
    newest = _newest(on, profile)
    if newest is not None:
        # How old it may be depends on when nobody writes: a night, a week-end.
        yield Proposal(
            {"kind": "freshness", **table, "column": newest, "max_age": "3d"},
            "the target's is as recent as the source's; and not older than this",
        )
    if on.key:
        recent = {"recent": "24h", "by": newest} if newest is not None else {}
        yield Proposal({"kind": "spot", "table": str(on.name), "random": 100, **recent})


def _around(low: str, high: str) -> tuple[float | int | str, float | int | str] | None:
    """Powers of ten around numbers; None where they say nothing."""
    try:
        least, most = Decimal(low), Decimal(high)
    except InvalidOperation:
        return None
    if not (least.is_finite() and most.is_finite()):
        return None
    if least == most == 0:
        return None
    return (_power(least) if least < 0 else 0), (_power(most) if most > 0 else 0)


def _power(number: Decimal) -> int | str:
    """The power of ten that has at least ten times the size, with the number's sign."""
    size = 10 ** max(number.copy_abs().adjusted() + 2, 1)
    signed = size if number > 0 else -size
    return signed if size < 10**15 else str(signed)


def _years(low: str, high: str, age: float | None) -> tuple[str, str] | None:
    """From the year before the first; to tomorrow where nothing lies ahead, else years ahead."""
    first, last = _year(low), _year(high)
    if first is None or last is None or age is None:
        return None
    ahead = "tomorrow" if age > 0 else f"{min(last + 10, date.max.year):04}-12-31"
    return f"{max(first - 1, 1):04}-01-01", ahead


def _year(moment: str) -> int | None:
    head = moment.partition("-")[0]
    return int(head) if head.isdigit() and len(head) == 4 and not moment.endswith("BC") else None


def _newest(on: Relation, profile: Profile) -> str | None:
    """The column of moments that is most recent, where one is; dates are too coarse."""
    ages = [
        (age, name)
        for name, age in profile.ages.items()
        if 0 <= age <= _FRESH_SECONDS
        and (column := on.column(name)) is not None
        and column.base_type != "pg_catalog.date"
    ]
    return min(ages)[1] if ages else None


def _plain(value: str) -> str:
    """One line, whatever a name contains: it must not leave its comment."""
    return "".join(c if c.isprintable() else "?" for c in value)
