"""A session that may write to the fenced tables of a target, as the migration's own may."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from cdc_migrator.control import fence


@contextmanager
def let_in(target: str) -> Iterator[psycopg.Connection]:
    """An autocommit session on the target that passes the fence."""
    with psycopg.connect(target, autocommit=True) as conn:
        fence.present(conn)
        yield conn
