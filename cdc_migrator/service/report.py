"""The report as a document of plain values: a summary for everybody, then what it rests on. Pure.

What programs read from `report -o json`, and what the page is made of. Unknown is None. Keys are
only ever added.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from cdc_migrator import __version__
from cdc_migrator.control.cutover import Attempt
from cdc_migrator.control.migration import Phase
from cdc_migrator.cutover.machine import STALLED, State
from cdc_migrator.monitor.status import readiness
from cdc_migrator.service.evidence import Evidence, Side
from cdc_migrator.service.journal import Journal
from cdc_migrator.service.judging import MEANING, Judged, stall

# Steps of the work that say little to who was not there; `journal show` has all of them.
_MINOR = frozenset(
    {
        "analyze", "connector-change", "connector-create", "connector-resume", "existing-schema",
        "fence-raised", "publication-add", "publication-anew",
        "publication-create", "run-started", "schema-tools-ended", "sequences-sync", "side-create",
        "slot-create", "slot-created", "snapshot-released", "stream-create", "table-planned",
        "tables-joining", "tables-registered", "views-filled", "reconcile-begun",
        "reconcile-resumed", "rebuild-begun", "schema-tables", "schema-indexes",
        "schema-foreign-keys",
    }
)  # fmt: skip
# Of an attempt those states count in which something changes for others, and its end.
_QUIET = frozenset(
    {State.CHECKING, State.PREPARING, State.HOLDING, State.DRAINING, State.VERIFYING,
     State.SEQUENCES}
)  # fmt: skip
_FIELDS = (
    "attempt",
    "state",
    "phase",
    "rehearsal",
    "run",
    "table",
    "kind",
    "place",
    "rule",
    "why",
    "number",
    "threshold",
    "below",
    "does",
    "side",
)


def document(known: Evidence, judged: Judged) -> dict[str, Any]:
    """The whole report, without `schema_version`, which the printer adds."""
    return {
        "migration": known.name,
        "made_at": known.at,
        "made_by": f"cdc-migrator {__version__}",
        "summary": _summary(known, judged),
        "timeline": timeline(known.journals),
        "verdict": readiness(known.gates),
        "compared_up_to": _compared_up_to(known),
        "tables": _tables(known),
        "attempts": _attempts(known),
        "sequences": _sequences(known),
        "repairs": _counted(known.repairs, "action"),
        "differences": _counted(known.differences, "state"),
        "comparisons": _runs(known),
        "stream": _stream(known),
        "way_back": _way_back(known),
        "watch": list(known.said.watch),
        "sides": {one.side: _side(one) for one in (known.source, known.target)},
        "hooks": list(known.said.hooks),
        "backups": _backups(known),
        "journals": [_journal(one) for one in known.journals],
        "journals_unread": list(known.unread),
        "notes": [{"part": n.part, "code": n.code, "cause": n.cause} for n in known.notes],
    }


def _summary(known: Evidence, judged: Judged) -> dict[str, Any]:
    sample, order = known.sample, list(Phase)
    phase = sample.phase
    began = known.migration.created_at if known.migration else None
    available = judged.availability
    return {
        "status": judged.status,
        "started_at": began,
        "duration_seconds": _round((known.at - began).total_seconds()) if began else None,
        "phase": {
            "number": order.index(phase) + 1 if phase else None,
            "of": len(order),
            "name": phase,
            "meaning": MEANING[phase] if phase else None,
        },
        "progress": {"fraction": _round(judged.progress.fraction, 4), "how": judged.progress.how},
        "availability": {
            "fraction": _round(available.fraction, 7),
            "stalled_seconds": _round(available.stalled_seconds),
            "over_seconds": _round(available.over_seconds),
            "how": available.how,
        },
        "data": _data(known),
        "impact": _impact(known),
        "issues": [
            {"level": one.level, "text": one.text, "remedy": one.remedy} for one in judged.issues
        ],
        "next": list(judged.next),
        "risk": {"level": judged.risk.level, "reasons": list(judged.risk.reasons)},
        "rollback": {"available": judged.way_back.available, "why": judged.way_back.why},
    }


def _data(known: Evidence) -> dict[str, Any] | None:
    tables, stream = known.sample.tables, known.sample.stream
    if tables is None:
        return None
    return {
        "tables": len(tables),
        "tables_loaded": sum(one.load_state == "loaded" for one in tables),
        "rows_loaded": sum(one.rows_loaded for one in tables),
        "rows_expected": sum(max(one.estimated_rows, one.rows_loaded) for one in tables),
        "bytes_loaded": sum(one.bytes_loaded for one in tables),
        "changes_applied": sum(one.events_applied for one in tables),
        "transactions_applied": stream.transactions_applied if stream else None,
    }


def _impact(known: Evidence) -> dict[str, Any]:
    """What the migration costs the source and its applications."""
    sample = known.sample
    server, slot = sample.source_server, sample.slot
    return {
        "load_limits": dict(known.said.throttle),
        "lag_seconds": _round(sample.lag_seconds),
        "retained_bytes": slot.retained_bytes if slot else None,
        "source_connections": server.connections if server else None,
        "source_max_connections": server.max_connections if server else None,
        "lock_waiters": server.lock_waiters if server else None,
        "longest_stall_seconds": _longest(known),
    }


def _longest(known: Evidence) -> float | None:
    if known.attempts is None:
        return None
    back = known.back.attempts if known.back else ()
    seconds = [stall(one, known.at).seconds for one in (*known.attempts, *back)]
    return max((_round(one) or 0.0 for one in seconds if one is not None), default=0.0)


def timeline(journals: Iterable[Journal]) -> list[dict[str, Any]]:
    """What was decided and done, both sides' journals merged by time.

    Steps of little meaning are counted with the entry that they follow (`minor`).
    """
    merged = sorted(
        ((entry, one.side) for one in journals for entry in one.entries),
        key=lambda pair: (pair[0].at, pair[1], pair[0].number),
    )
    told: list[dict[str, Any]] = []
    for entry, side in merged:
        details = entry.details if isinstance(entry.details, dict) else {}
        quiet = entry.action == "cutover-state" and details.get("state") in _QUIET
        if told and (entry.action in _MINOR or quiet):
            told[-1]["minor"] += 1
            continue
        error = details.get("error") or details.get("last_error") or {}
        told.append(
            {
                "at": entry.at,
                "side": side,
                "number": entry.number,
                "action": entry.action,
                "details": {key: details[key] for key in _FIELDS if details.get(key) is not None},
                "error": error.get("cause") if isinstance(error, dict) else None,
                "by": entry.actor,
                "minor": 0,
            }
        )
    return told


def _tables(known: Evidence) -> list[dict[str, Any]] | None:
    if known.sample.tables is None:
        return None
    proven = {str(one.table): one for one in known.proofs or ()}
    told = []
    for table in known.sample.tables:
        proof = proven.get(table.source)
        told.append(
            {
                "source": table.source,
                "target": table.target,
                "rows_loaded": table.rows_loaded,
                "bytes_loaded": table.bytes_loaded,
                "inserts": table.inserts,
                "updates": table.updates,
                "deletes": table.deletes,
                "truncates": table.truncates,
                # None: what was proven could not be read; False: nothing was.
                "proven": None if known.proofs is None else proof is not None and proof.proven > 0,
                "rows_proven": proof.rows if proof else None,
                "digest": proof.digest if proof else None,
                "equal": proof.equal if proof and proof.proven else None,
                "chunks": proof.chunks if proof else None,
                "chunks_proven": proof.proven if proof else None,
                "chunks_changed_since": proof.dirty if proof else None,
                "proven_since": proof.since if proof else None,
                "proven_until": proof.until if proof else None,
            }
        )
    return told


def _compared_up_to(known: Evidence) -> datetime | None:
    """What was written until then is compared; None where it is not, or not known."""
    proofs, fresh = known.sample.proofs, known.sample.freshness
    if proofs is None or proofs.verified_as_of is None or fresh is None:
        return None
    # What applications write to the target once it is open is marked by nobody.
    left = [one.fenced_at for one in known.attempts or () if one.opened_at and one.fenced_at]
    if left and fresh.up_to and known.sample.phase is Phase.SWITCHED:
        return min(fresh.up_to, left[-1])
    return fresh.up_to


def _attempts(known: Evidence) -> list[dict[str, Any]] | None:
    if known.attempts is None:
        return None
    back = known.back.attempts if known.back else ()
    both = [("forward", one) for one in known.attempts] + [("back", one) for one in back]
    return [_attempt(way, one, known) for way, one in sorted(both, key=lambda b: b[1].started_at)]


def _attempt(way: str, attempt: Attempt, known: Evidence) -> dict[str, Any]:
    waited = stall(attempt, known.at)
    details = attempt.details
    seconds = details.get("seconds", {})
    return {
        "direction": way,
        **attempt.facts(),
        "stall_seconds": _round(waited.seconds, 4),
        "stall_exact": waited.exact,
        "steps": [
            {"state": state, "seconds": seconds[state], "stalls": state in STALLED}
            for state in State
            if state in seconds
        ],
        "verified": details.get("verified"),
        "verify_error": details.get("verify_error"),
        "sequences": details.get("sequences"),
        "lag_before_seconds": details.get("lag_before"),
        "terminated": details.get("terminated"),
        "error": attempt.error,
    }


def _sequences(known: Evidence) -> dict[str, Any] | None:
    """How they were set last, by the journal; None where that is not known."""
    ours = next((one for one in known.journals if one.side == "target"), None)
    if ours is None:
        return None
    set_at = [entry for entry in ours.entries if entry.action == "sequences-sync"]
    last = set_at[-1] if set_at else None
    return {
        "set_at": last.at if last else None,
        "times": len(set_at),
        "margin": last.details.get("margin") if last else None,
        "sequences": last.details.get("sequences", []) if last else [],
    }


def _counted(found: Any, called: str) -> list[dict[str, Any]] | None:
    if found is None:
        return None
    return [
        {"table": str(one.table), called: one.kind, "count": one.count, "last_at": one.at}
        for one in found
    ]


def _runs(known: Evidence) -> list[dict[str, Any]] | None:
    if known.runs is None:
        return None
    return [
        {
            "run": one.id,
            "mode": one.mode,
            "tables": len(one.tables),
            "state": one.state,
            "started_at": one.started_at,
            "ended_at": one.ended_at,
            "by": one.actor,
        }
        for one in known.runs
    ]


def _stream(known: Evidence) -> dict[str, Any]:
    sample, said = known.sample, known.sample.service
    stream, connector = sample.stream, sample.connector
    halts = [e for one in known.journals for e in one.entries if e.action == "run-failed"]
    return {
        "service": said.state if said else None,
        "lag_seconds": _round(sample.lag_seconds),
        "events_pending": sample.events_pending,
        "transactions_per_second": _round(said.transactions_per_second) if said else None,
        "events_per_second": _round(said.events_per_second) if said else None,
        "transactions_applied": stream.transactions_applied if stream else None,
        "transactions_redelivered": stream.transactions_redelivered if stream else None,
        "transactions_suspect": stream.transactions_suspect if stream else None,
        "ignored_since_left": stream.ignored_since_left if stream else None,
        "halts": len(halts) if known.journals else None,
        "last_error": sample.last_error,
        "connector": None
        if connector is None
        else {"name": connector.name, "state": connector.state, "tasks": list(connector.tasks)},
        "slot": None
        if sample.slot is None
        else {
            "name": sample.slot.name,
            "exists": sample.slot.exists,
            "active": sample.slot.active,
            "retained_bytes": sample.slot.retained_bytes,
        },
        "target_fence": sample.fence.state if sample.fence else None,
    }


def _way_back(known: Evidence) -> dict[str, Any] | None:
    """The stream from the target to the source; None where the source did not say."""
    back = known.sample.way_back
    if back is None:
        return None
    return {
        "prepared": back.prepared,
        "active": back.active,
        "leg": back.leg,
        "tables": len(back.tables),
        "tables_missing": list(back.missing),
        "lag_seconds": _round(back.lag_seconds),
        "error": back.error,
    }


def _side(side: Side) -> dict[str, Any]:
    return {
        "address": side.address,
        "version": side.version,
        "bytes": side.bytes,
        "route": side.route,
        "silent": side.silent,
    }


def _backups(known: Evidence) -> list[dict[str, Any]] | None:
    if known.backups is None:
        return None
    return [
        {
            "id": one.id,
            "kind": one.kind,
            "place": one.place,
            "taken_at": one.taken_at,
            "bytes": one.bytes,
            "verified_at": one.verified_at,
            "usable": one.usable,
        }
        for one in known.backups
    ]


def _journal(one: Journal) -> dict[str, Any]:
    checked = one.checked
    return {
        "side": one.side,
        "migration": one.migration,
        "entries": checked.entries,
        "head": checked.head,
        "whole": checked.fault is None,
        "fault": checked.fault.reason if checked.fault else None,
    }


def _round(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
