"""The migration row: its phase, its generation, and what stopped it last."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from cdc_migrator.control import journal, schema
from cdc_migrator.errors import Refused
from cdc_migrator.model.naming import Names


class Phase(StrEnum):
    """The migration's life in order; each step is skipped once its phase is past."""

    CREATED = "created"
    SCHEMA = "schema"
    CAPTURE = "capture"
    LOAD = "load"
    INDEXES = "indexes"
    STREAM = "stream"
    SWITCHED = "switched"

    def reached(self, other: Phase) -> bool:
        """Whether this phase is `other` or a later one."""
        order = list(Phase)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class Migration:
    """One row of ``migration``.

    `placeholder` stands for unchanged TOAST values in events; `existing_schema`: the target's
    schema is made by other tools.
    """

    name: str
    generation: int
    phase: Phase
    source_system_identifier: str | None
    source_timeline: int | None
    consistent_point: str | None
    snapshot_name: str | None
    snapshot: str | None
    snapshot_holder_pid: int | None
    placeholder: str
    existing_schema: bool
    last_error: dict[str, Any] | None
    created_at: datetime
    changed_at: datetime

    @property
    def names(self) -> Names:
        return Names(self.name, self.generation)


_COLUMNS = (
    "name, generation, phase, source_system_identifier, source_timeline, "
    "consistent_point::text, snapshot_name, snapshot::text, snapshot_holder_pid, placeholder, "
    "existing_schema, last_error, created_at, changed_at"
)


def read(conn: psycopg.Connection) -> Migration | None:
    """The migration that this target belongs to, or None."""
    with conn.cursor(row_factory=class_row(Migration)) as cursor:
        row = cursor.execute(f"SELECT {_COLUMNS} FROM cdc_migrator.migration").fetchone()  # noqa: S608
    return replace(row, phase=Phase(row.phase)) if row else None


def find(conn: psycopg.Connection, name: str) -> Migration | None:
    """The migration `name`, or None where none was started on this target.

    Raises:
        Refused: CDCM-TARGET-TAKEN: this target belongs to a migration of another name.
    """
    there = read(conn) if schema.exists(conn, "target") else None
    if there is not None and there.name != name:
        raise Refused(
            "CDCM-TARGET-TAKEN",
            f"this target belongs to the migration {there.name!r}, not to {name!r}",
            "Look at `name` and `target` in migration.yaml.",
        )
    return there


def require(conn: psycopg.Connection, name: str) -> Migration:
    """The migration `name`. Raises as `find`, and what `missing` makes where there is none."""
    there = find(conn, name)
    if there is None:
        raise missing(name)
    return there


def missing(name: str) -> Refused:
    """CDCM-MIGRATION-MISSING: nothing was started under this name."""
    return Refused(
        "CDCM-MIGRATION-MISSING",
        f"there is no migration {name!r} on this target",
        "Start it with `cdc-migrator migrate`.",
    )


def create(conn: psycopg.Connection, name: str) -> Migration:
    """The migration's row, made if it is not there yet.

    Raises:
        Refused: CDCM-TARGET-TAKEN: this target belongs to a migration of another name.
    """
    there = read(conn)
    if there is None:
        with conn.transaction():
            journal.write(conn, "migration-created", name=name)
            conn.execute(
                "INSERT INTO cdc_migrator.migration (name, phase, placeholder) VALUES (%s, %s, %s)",
                (name, Phase.CREATED, f"__cdcm_unchanged_{secrets.token_hex(12)}"),
            )
        there = read(conn)
    assert there is not None
    if there.name != name:
        raise Refused(
            "CDCM-TARGET-TAKEN",
            f"this target belongs to the migration {there.name!r}",
            "Use another target, or remove that migration with `cdc-migrator abort`.",
        )
    return there


def update(conn: psycopg.Connection, action: str, **columns: Any) -> None:
    """Set columns of the migration row, with a journal entry `action` in the same transaction."""
    allowed = set(Migration.__dataclass_fields__) - {"name", "created_at", "changed_at"}
    unknown = set(columns) - allowed
    if unknown:
        raise ValueError(f"no such column: {sorted(unknown)}")
    with conn.transaction():
        journal.write(conn, action, **columns)
        for column, value in columns.items():
            bound = Jsonb(value) if column == "last_error" and value is not None else value
            conn.execute(
                f"UPDATE cdc_migrator.migration SET {column} = %s, changed_at = now()",  # noqa: S608
                (bound,),
            )


def set_phase(conn: psycopg.Connection, phase: Phase, **details: Any) -> None:
    """Enter a phase, journalled with `details`."""
    with conn.transaction():
        journal.write(conn, "phase", phase=phase, **details)
        conn.execute("UPDATE cdc_migrator.migration SET phase = %s, changed_at = now()", (phase,))
