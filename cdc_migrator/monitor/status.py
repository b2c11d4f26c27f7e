"""The status document: what programs read from `status -o json`, and what the verdict rests on.

Pure: a `Sample` in, plain values out. Unknown is None. Keys are only ever added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cdc_migrator.model.connector_failures import failure
from cdc_migrator.model.gates import Gate, ready, reasons
from cdc_migrator.monitor.gates import gates
from cdc_migrator.monitor.ground import losses, retained_beyond
from cdc_migrator.monitor.inspected import last_validation
from cdc_migrator.monitor.limits import Limits
from cdc_migrator.monitor.sample import Sample, ServerSample
from cdc_migrator.monitor.table_sample import TableSample

# No estimate from so little that the first table's start-up would decide it.
_LEAST_FRACTION = 0.01


def document(sample: Sample, limits: Limits) -> dict[str, Any]:
    """The whole document, without `schema_version`, which the printer adds."""
    return {
        "migration": sample.migration,
        "generation": sample.generation,
        "phase": sample.phase,
        "lag_seconds": _round(sample.lag_seconds, 3),
        "lag_events": sample.events_pending,
        "lag_events_exact": sample.pending_exact,
        "tables": [_table(t) for t in sample.tables] if sample.tables is not None else None,
        "not_added": _not_added(sample),
        "accepted": [{"code": code, "reason": reason} for code, reason in limits.accepted],
        "target_fence": sample.fence.state if sample.fence else None,
        "target_fence_lacking": list(sample.fence.lacking) if sample.fence else None,
        "dead_letters": sample.parked.letters if sample.parked else None,
        "parked": _parked(sample),
        "without_way_back": [there for _, there in sample.way_back.without]
        if sample.way_back
        else None,
        "ready": readiness(gates(sample, limits)),
        "load": _load(sample),
        "rates": _rates(sample),
        "stages": _stages(sample),
        "catch_up": _catch_up(sample),
        "transactions": _transactions(sample),
        "service": _service(sample),
        "slot": _slot(sample),
        "connector": _connector(sample),
        "retention": _retention(sample),
        "ground": _ground(sample),
        "servers": {
            "source": _server(sample.source_server),
            "target": _server(sample.target_server),
        },
        "clocks": {
            "target_ahead_seconds": _round(sample.target_ahead, 3),
            "source_ahead_seconds": _round(sample.source_ahead, 3),
        },
        "compared_up_to": sample.freshness.up_to.isoformat()
        if sample.freshness and sample.freshness.up_to
        else None,
        "verified_as_of": sample.proofs.verified_as_of.isoformat()
        if sample.proofs and sample.proofs.verified_as_of
        else None,
        "reconcile": _reconcile(sample),
        "validation": _validation(sample),
        "last_error": sample.last_error,
        "notes": [{"part": n.part, "code": n.code, "cause": n.cause} for n in sample.notes],
        "sampled_at": sample.at.isoformat(),
    }


def readiness(found: Sequence[Gate]) -> dict[str, Any]:
    """The verdict on leaving the source, and each gate's answer."""
    return {
        "verdict": ready(found),
        "reasons": reasons(found),
        "gates": [gate.as_dict() for gate in found],
    }


def _parked(sample: Sample) -> dict[str, Any] | None:
    """`exact`: the target lacks nothing that came."""
    there = sample.parked
    if there is None:
        return None
    return {
        "exact": there.exact,
        "keys": there.keys,
        "records": there.letters,
        "keys_skipped": there.skipped,
        "records_left_out": there.left_out,
        "since": there.oldest.isoformat() if there.oldest else None,
    }


def _not_added(sample: Sample) -> dict[str, Any] | None:
    if sample.not_added is None:
        return None
    return {
        "tables": list(sample.not_added),
        "remedy": "cdc-migrator migrate --no-run" if sample.not_added else None,
    }


def _table(table: TableSample) -> dict[str, Any]:
    return {
        "name": table.source,
        "source": table.shaped_from or table.source,
        "target": table.target,
        "mapped": table.shaped_from is not None,
        "rows_loaded": table.rows_loaded,
        "events_applied": table.events_applied,
        "load_state": table.load_state,
        "estimated_rows": table.estimated_rows,
        "bytes_loaded": table.bytes_loaded,
        "inserts": table.inserts,
        "updates": table.updates,
        "deletes": table.deletes,
        "truncates": table.truncates,
        "truncates_ignored": table.truncates_ignored,
        "joining": table.joining,
    }


def _load(sample: Sample) -> dict[str, Any] | None:
    if sample.load is None or sample.tables is None:
        return None
    fraction, elapsed = sample.load.done_fraction, sample.load.elapsed_seconds
    left = None
    if fraction is not None and elapsed is not None and fraction >= _LEAST_FRACTION:
        left = elapsed * (1 - fraction) / fraction
    return {
        "done_fraction": _round(fraction, 4),
        "elapsed_seconds": _round(elapsed, 1),
        "seconds_left": _round(left, 0),
        "tables_loaded": sum(t.load_state == "loaded" for t in sample.tables),
        "tables": len(sample.tables),
    }


def _rates(sample: Sample) -> dict[str, float | None]:
    said = sample.service
    return {
        "transactions_per_second": _round(said.transactions_per_second, 1) if said else None,
        "events_per_second": _round(said.events_per_second, 1) if said else None,
    }


def _transactions(sample: Sample) -> dict[str, int] | None:
    if sample.stream is None:
        return None
    return {
        "applied": sample.stream.transactions_applied,
        "redelivered": sample.stream.transactions_redelivered,
        "suspect": sample.stream.transactions_suspect,
    }


def _service(sample: Sample) -> dict[str, Any] | None:
    """None where the target did not tell; `running` is false without a recent sign of life."""
    if sample.phase is None:
        return None
    said, owner = sample.service, sample.owner
    return {
        "running": said is not None,
        "state": said.state if said else None,
        "waiting": said.waiting if said else None,
        "owner": owner.owner if owner else None,
        "seen_seconds_ago": _round(owner.seen_seconds, 1) if owner else None,
        "rss_bytes": said.rss_bytes if said else None,
        "queue_bytes": said.queue_bytes if said else None,
    }


def _reconcile(sample: Sample) -> dict[str, Any] | None:
    if sample.proofs is None:
        return None
    known, said = sample.proofs, sample.service
    return {
        "open": known.open,
        "accepted": known.accepted,
        "chunks": known.chunks,
        "chunks_dirty": known.dirty,
        "tables_unproven": known.unproven_tables,
        "continuous": said.comparing if said else None,
    }


def _validation(sample: Sample) -> dict[str, Any] | None:
    run = last_validation(sample)
    return dict(run) if run is not None else None


def _slot(sample: Sample) -> dict[str, Any] | None:
    if sample.slot is None:
        return None
    return {
        "name": sample.slot.name,
        "exists": sample.slot.exists,
        "active": sample.slot.active,
        "wal_status": sample.slot.wal_status,
        "retained_bytes": sample.slot.retained_bytes,
        "safe_bytes": sample.slot.safe_bytes,
        "confirmed_flush_lsn": sample.slot.confirmed_flush_lsn,
        "unconfirmed_bytes": sample.slot.unconfirmed_bytes,
        "wal_bytes_per_second": _round(sample.wal_bytes_per_second, 0),
        "seconds_to_limit": _round(sample.slot_seconds_left, 0),
    }


def _connector(sample: Sample) -> dict[str, Any] | None:
    if sample.connector is None:
        return None
    known = failure(sample.connector.trace)
    return {
        "name": sample.connector.name,
        "exists": sample.connector.exists,
        "state": sample.connector.state,
        "tasks": list(sample.connector.tasks),
        "trace": sample.connector.trace,
        "failure": known.as_dict() if known is not None else None,
        "worker": sample.connector.worker,
        "restarts": sample.service.connector_restarts if sample.service else None,
    }


def _stages(sample: Sample) -> dict[str, float | None]:
    said = sample.service
    return {
        "capture_seconds": _round(said.capture_seconds, 3) if said else None,
        "delivery_seconds": _round(said.delivery_seconds, 3) if said else None,
    }


def _catch_up(sample: Sample) -> dict[str, float | None] | None:
    """`seconds` is None while no less arrives than is applied."""
    if sample.catch_up is None:
        return None
    return {
        "seconds": _round(sample.catch_up.seconds, 0),
        "records_applied_per_second": _round(sample.catch_up.applied_per_second, 1),
        "records_arriving_per_second": _round(sample.catch_up.arriving_per_second, 1),
    }


def _retention(sample: Sample) -> dict[str, Any] | None:
    if sample.retention is None:
        return None
    return {
        "unlimited": sample.retention.unlimited,
        "seconds": sample.retention.seconds,
        "bytes": sample.retention.bytes,
        "compacted": sample.retention.compacted,
        "start_offset": sample.retention.start_offset,
        "seconds_left": _round(sample.retention_seconds_left, 0),
    }


def _ground(sample: Sample) -> dict[str, Any] | None:
    """None before capture has begun; `lost` is empty while changes can be captured and applied."""
    ground = sample.ground
    if ground is None:
        return None
    level, told = retained_beyond(sample)
    now = ground.source
    return {
        "lost": [loss.as_dict() for loss in losses(sample)],
        "source_system": now.system if now else None,
        "source_timeline": now.timeline if now else None,
        "captured_system": ground.system,
        "captured_timeline": ground.timeline,
        "slot_invalidated": now.invalidated if now else None,
        "topic_id": ground.present_topic_id,
        "captured_topic_id": ground.topic_id,
        "retained_wal": {
            "level": ("fine", "warn", "limit")[level],
            "warn_bytes": ground.retained.warn,
            "limit_bytes": ground.retained.limit,
            "action": ground.retained.action,
            "told": told,
        },
    }


def _server(server: ServerSample | None) -> dict[str, Any] | None:
    if server is None:
        return None
    return {
        "connections": server.connections,
        "max_connections": server.max_connections,
        "database_bytes": server.database_bytes,
        "lock_waiters": server.lock_waiters,
        "lock_wait_seconds": _round(server.lock_wait_seconds, 1),
    }


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
