"""Hooks of mappings: functions as users write them, and some that nobody should."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import count

Rows = list[dict[str, str | None]]
FAILS = "a code that the function does not bear"
STATES = {"t": "open", "f": "shut", None: "unknown"}
_numbers = count()


def told(rows: Rows) -> Rows:
    """What the property's oracle says in SQL."""
    return [_told(**row) for row in rows]


def _told(
    code: str | None, cents: str | None, at: str | None, ok: str | None, body: str | None
) -> dict[str, str | None]:
    if code == FAILS:
        raise ValueError(f"of no use: {code}")
    backwards = code and code[::-1]
    return {
        "told": None if backwards is None else backwards + "\\\n\t" + (body or "none"),
        "size": None if body is None else str(len(body)),
        "day": at and at[:10],
        "share": cents and str(Decimal(cents) / 8),
        "state": STATES[ok],
        "code": code and code[:4],
    }


def line(rows: Rows) -> Iterator[dict[str, str | None]]:
    """Of a table without a key."""
    for row in rows:
        yield {"loud": (row["body"] or "").upper(), "level": row["what"]}


def phone(rows: Rows) -> Rows:
    """Changes the rows that it was handed, and leaves more in them than is asked for."""
    for row in rows:
        digits = "".join(filter(str.isdigit, row["phone"] or ""))
        row["phone"] = f"+49{digits.lstrip('0')}" if digits else None
        row["digits"] = str(len(digits))
    return rows


def failing(rows: Rows) -> Rows:
    """Fails on one row of many, with its value in the message."""
    for row in rows:
        if row["phone"] == "0000":
            raise ValueError(f"no phone: {row['phone']} of {row['id']}")
    return phone(rows)


def too_few(rows: Rows) -> Rows:
    return phone(rows)[1:]


def numbered(rows: Rows) -> Rows:
    return [{"phone": str(next(_numbers)), "digits": "1"} for _ in rows]


def of_the_batch(rows: Rows) -> Rows:
    return [{"phone": str(len(rows)), "digits": "1"} for _ in rows]


def untold(rows: Rows) -> Rows:
    return [{"phone": row["phone"]} for row in rows]


def other_kind(rows: Rows) -> list[dict[str, int | str | None]]:
    return [{"phone": row["phone"], "digits": 1} for row in rows]


def no_number(rows: Rows) -> Rows:
    return [{"phone": row["phone"], "digits": "many"} for row in rows]


def with_a_null(rows: Rows) -> Rows:
    return [{"phone": "\0", "digits": "1"} for _ in rows]


def no_rows(rows: Rows) -> Rows:
    return [None for _ in rows]  # type: ignore[misc]
