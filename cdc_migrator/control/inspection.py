"""What an inspection has found last, part by part, with the moment by the target's clock.

Parts are plain values, so that whoever looks at them needs no session of its own. A part that
could not be looked at holds ``error`` alone, with the error's code and cause.

``schema``, ``constraints``
    ``differences``: those that are more than information, at most `MOST`, each with ``kind``,
    ``object``, ``attribute``, ``severity``; ``errors``, ``warnings``: how many there are.
``sequences``
    ``sequences``: how many; ``to_set``: those that a synchronisation would move or alter;
    ``failed``: ``sequence``, ``code``, ``cause``, ``remedy`` of those that it could not.
``source``
    ``obstacles``: who is in the way of the fence now: ``kind``, ``tables``, ``name``, ``pid``,
    ``seconds``, ``remedy``; ``transactions``: that have written and are open, the longest first:
    ``pid``, ``name``, ``seconds``, ``prepared``; ``not_owned``: tables that the role may not fence.
``target``
    ``in_recovery``, ``read_only``, ``not_owned``: as far as it can be written to.
``preparations``
    ``backup``: the latest that may be relied on: ``kind``, ``place``, ``taken_at``, or null;
    ``rehearsal``: the latest that succeeded: ``attempt``, ``ended_at``, ``hooks``, or null.
``validation``
    ``run``: the last one in which all rules were looked at: ``id``, ``rules`` (their digest),
    ``aligned``, ``passed``, ``ended_at``, ``counted`` and ``not_passed`` by severity, ``against``:
    those that were not passed, at most `MOST`: ``name``, ``severity``, ``status``, ``reason``; or
    null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

MOST = 20  # things of one kind that a part names

SCHEMA = "schema"
CONSTRAINTS = "constraints"
SEQUENCES = "sequences"
SOURCE = "source"
TARGET = "target"
PREPARATIONS = "preparations"
VALIDATION = "validation"
PARTS = (SCHEMA, CONSTRAINTS, SEQUENCES, SOURCE, TARGET, PREPARATIONS, VALIDATION)


@dataclass(frozen=True, slots=True)
class Part:
    """One part as it was found."""

    found: Mapping[str, Any]
    at: datetime


def read(conn: psycopg.Connection) -> dict[str, Part]:
    """All parts that were ever looked at, by name. The table must be there."""
    rows = conn.execute(
        "SELECT part, found, at FROM cdc_migrator.inspection WHERE part = ANY(%s)", (list(PARTS),)
    )
    return {name: Part(found, at) for name, found, at in rows}


def store(conn: psycopg.Connection, parts: Mapping[str, Part]) -> None:
    """Keep these instead of what was found before; others stay."""
    with conn.transaction(), conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO cdc_migrator.inspection (part, found, at) VALUES (%s, %s, %s) "
            "ON CONFLICT (part) DO UPDATE SET found = excluded.found, at = excluded.at",
            [(name, Jsonb(part.found), part.at) for name, part in sorted(parts.items())],
        )
