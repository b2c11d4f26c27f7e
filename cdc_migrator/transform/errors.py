"""What a server says of a row that an expression fails on: the kind of error, never the value."""

from __future__ import annotations

import re

import psycopg


def kind(sqlstate: str) -> str:
    """``invalid text representation``: the name of an SQLSTATE, as PostgreSQL's manual has it."""
    try:
        name = psycopg.errors.lookup(sqlstate).__name__
    except KeyError:
        return "an error of its own"
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()


def said(exc: psycopg.Error) -> str:
    """``22P02, invalid text representation``."""
    state = exc.sqlstate or ""
    return f"{state}, {kind(state)}" if state else type(exc).__name__
