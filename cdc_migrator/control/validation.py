"""Which rules were checked when, and what came of them. No value of a row is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from cdc_migrator.control import inspection, journal
from cdc_migrator.control.inspection import MOST, Part

_RUNS_KEPT = 100


@dataclass(frozen=True, slots=True)
class Kept:
    """One row of ``validation_result``."""

    name: str
    kind: str
    table: str | None
    severity: str
    status: str
    reason: str
    seconds: float


def store(
    conn: psycopg.Connection,
    rules: str,
    whole: bool,
    aligned: bool,
    passed: bool,
    at: datetime | None,
    seconds: float,
    results: Sequence[Kept],
) -> int:
    """Keep a run with its results, and show it to whoever asks for the verdict; the run's number.

    Args:
        rules: digest of all rules in force. whole: all of them were looked at.
        passed: every blocker was seen to be kept.
        at: the moment of the last point at which both sides were read.
    """
    with conn.transaction():
        row = conn.execute(
            "INSERT INTO cdc_migrator.validation_run "
            "(rules, whole, aligned, passed, at, seconds, actor) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id",
            (rules, whole, aligned, passed, at, seconds, journal.actor()),
        ).fetchone()
        assert row is not None
        number = int(row[0])
        with conn.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO cdc_migrator.validation_result (run, place, name, kind, table_name, "
                "severity, status, reason, seconds) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [
                    (
                        number,
                        place,
                        one.name,
                        one.kind,
                        one.table,
                        one.severity,
                        one.status,
                        one.reason,
                        one.seconds,
                    )
                    for place, one in enumerate(results)
                ],
            )
        conn.execute(
            "DELETE FROM cdc_migrator.validation_run WHERE id <= %s", (number - _RUNS_KEPT,)
        )
        clock = conn.execute("SELECT clock_timestamp()").fetchone()
        assert clock is not None
        inspection.store(conn, {inspection.VALIDATION: Part({"run": latest(conn)}, clock[0])})
    return number


def latest(conn: psycopg.Connection) -> Mapping[str, Any] | None:
    """The last run in which all rules were looked at, as `inspection` has it; None: there is none.

    The migration's control schema must be of this release.
    """
    row = conn.execute(
        "SELECT id, rules, aligned, passed, ended_at FROM cdc_migrator.validation_run "
        "WHERE whole ORDER BY id DESC LIMIT 1"
    ).fetchone()
    if row is None:
        return None
    number, rules, aligned, passed, ended_at = row
    counted = conn.execute(
        "SELECT severity, count(*), count(*) FILTER (WHERE status <> 'passed') "
        "FROM cdc_migrator.validation_result WHERE run = %s GROUP BY severity ORDER BY severity",
        (number,),
    ).fetchall()
    against = conn.execute(
        "SELECT name, severity, status, reason FROM cdc_migrator.validation_result "
        "WHERE run = %s AND status <> 'passed' ORDER BY severity <> 'blocker', place LIMIT %s",
        (number, MOST),
    ).fetchall()
    return {
        "id": number,
        "rules": rules,
        "aligned": aligned,
        "passed": passed,
        "ended_at": ended_at.isoformat(),
        "counted": {severity: whole for severity, whole, _ in counted},
        "not_passed": {severity: wrong for severity, _, wrong in counted},
        "against": [
            {"name": name, "severity": severity, "status": status, "reason": reason}
            for name, severity, status, reason in against
        ],
    }
