"""Every gauge: its name, help and label, and where a sample holds it. What is unknown is None."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cdc_migrator.control.migration import Phase
from cdc_migrator.monitor.ground import CODES, losses
from cdc_migrator.monitor.inspected import last_validation
from cdc_migrator.monitor.sample import Sample, ServerSample, ServiceState
from cdc_migrator.monitor.schema_gate import coming, standing


@dataclass(frozen=True, slots=True)
class Gauge:
    """A gauge with the label `migration` alone: its name, help, and where a sample holds it."""

    name: str
    help: str
    value: Callable[[Sample], float | None]


@dataclass(frozen=True, slots=True)
class LabelledGauge:
    """A gauge with one label more, and its values by that label's; what is unknown is left out."""

    name: str
    help: str
    label: str
    values: Callable[[Sample], Mapping[str, float]]


def _number(value: float | bool | None) -> float | None:
    return None if value is None else float(value)


GAUGES: Final = (
    Gauge(
        "end_to_end_lag_seconds",
        "From source commit to target commit; while nothing is applied, the growing age.",
        lambda s: s.lag_seconds,
    ),
    Gauge(
        "events_pending",
        "Records between what is applied and the end of the topic; an upper bound unless 0.",
        lambda s: _number(s.events_pending),
    ),
    Gauge(
        "consumer_lag_records",
        "End offset of the topic less the next offset to apply; holes are counted, too.",
        lambda s: (
            max(s.end_offset - s.stream.next_offset, 0)
            if s.end_offset is not None and s.stream
            else None
        ),
    ),
    Gauge(
        "last_event_applied_timestamp_seconds",
        "When the last transaction was applied, by the target's clock.",
        lambda s: s.stream.applied_at.timestamp() if s.stream and s.stream.applied_at else None,
    ),
    Gauge(
        "written_on_source_after_cutover",
        "Changes of migrated tables that were written on the source after the target was opened; "
        "not known where the way back writes there.",
        lambda s: _number(s.stream.ignored_since_left) if s.stream else None,
    ),
    Gauge(
        "way_back_prepared",
        "1 if a stream from the target to the source is prepared.",
        lambda s: _number(s.way_back.prepared) if s.way_back else None,
    ),
    Gauge(
        "way_back_active",
        "1 if what is written on the target is applied to the source.",
        lambda s: _number(s.way_back.active) if s.way_back and s.way_back.prepared else None,
    ),
    Gauge(
        "way_back_lag_seconds",
        "How far the source is behind the target, or for how long nobody has applied the way back.",
        lambda s: s.way_back.lag_seconds if s.way_back else None,
    ),
    Gauge(
        "way_back_halted",
        "1 if the stream from the target to the source has stopped with an error.",
        lambda s: _number(s.way_back.error is not None) if s.way_back else None,
    ),
    Gauge(
        "slot_retained_bytes",
        "Write-ahead log that the source keeps because of the replication slot.",
        lambda s: _number(s.slot.retained_bytes) if s.slot else None,
    ),
    Gauge(
        "slot_safe_wal_bytes",
        "Write-ahead log that may still be written before the source gives the slot up.",
        lambda s: _number(s.slot.safe_bytes) if s.slot else None,
    ),
    Gauge(
        "slot_active",
        "1 while the connector reads from the replication slot.",
        lambda s: _number(s.slot.active) if s.slot else None,
    ),
    Gauge(
        "connector_running",
        "1 while the connector and all its tasks are RUNNING.",
        lambda s: _number(s.connector.running) if s.connector else None,
    ),
    Gauge(
        "snapshot_expected_rows",
        "Rows that the load expects to copy, by the source's statistics.",
        lambda s: sum(t.estimated_rows for t in s.tables) if s.tables is not None else None,
    ),
    Gauge(
        "snapshot_tables_remaining",
        "Tables that are not loaded yet.",
        lambda s: sum(t.load_state != "loaded" for t in s.tables) if s.tables is not None else None,
    ),
    Gauge(
        "queue_bytes",
        "Events that are read and not yet applied.",
        lambda s: _number(s.service.queue_bytes) if s.service else None,
    ),
    Gauge(
        "reconcile_proof_age_seconds",
        "Age of the oldest proof that a part of a table is equal on both sides.",
        lambda s: (
            (s.at - s.proofs.verified_as_of).total_seconds()
            if s.proofs and s.proofs.verified_as_of
            else None
        ),
    ),
    Gauge(
        "reconcile_open_differences",
        "Rows that differ and are neither repaired nor accepted.",
        lambda s: _number(s.proofs.open) if s.proofs else None,
    ),
    Gauge(
        "reconcile_dirty_chunks",
        "Parts of tables that are not proven, or were written to since.",
        lambda s: _number(s.proofs.dirty) if s.proofs else None,
    ),
    Gauge(
        "reconcile_chunks",
        "Parts of all tables that were ever compared.",
        lambda s: _number(s.proofs.chunks) if s.proofs else None,
    ),
    Gauge(
        "validation_last_run_timestamp_seconds",
        "When all rules were checked last, by the target's clock.",
        lambda s: (
            datetime.fromisoformat(run["ended_at"]).timestamp()
            if (run := last_validation(s))
            else None
        ),
    ),
    Gauge(
        "dead_letters",
        "Records that the target did not accept, and later ones of their keys: kept back.",
        lambda s: _number(s.parked.letters) if s.parked else None,
    ),
    Gauge(
        "parked_keys",
        "Keys whose records are kept back.",
        lambda s: _number(s.parked.keys) if s.parked else None,
    ),
    Gauge(
        "skipped_keys",
        "Keys whose records were given up, and whose rows were not written anew since.",
        lambda s: _number(s.parked.skipped) if s.parked else None,
    ),
    Gauge(
        "transactions_per_second",
        "Source transactions applied, over the last seconds.",
        lambda s: s.service.transactions_per_second if s.service else None,
    ),
    Gauge(
        "events_per_second",
        "Row events applied, over the last seconds.",
        lambda s: s.service.events_per_second if s.service else None,
    ),
    Gauge(
        "lag_capture_seconds",
        "Part of the lag from the source's commit into the topic.",
        lambda s: s.service.capture_seconds if s.service else None,
    ),
    Gauge(
        "lag_delivery_seconds",
        "Part of the lag from the topic to the target's commit.",
        lambda s: s.service.delivery_seconds if s.service else None,
    ),
    Gauge(
        "records_applied_per_second",
        "Records of the topic applied, over the last half minute.",
        lambda s: s.catch_up.applied_per_second if s.catch_up else None,
    ),
    Gauge(
        "records_arriving_per_second",
        "Records that came into the topic, over the last half minute.",
        lambda s: s.catch_up.arriving_per_second if s.catch_up else None,
    ),
    Gauge(
        "estimated_catch_up_seconds",
        "Until nothing is pending at these rates; absent while no less arrives than is applied.",
        lambda s: s.catch_up.seconds if s.catch_up else None,
    ),
    Gauge(
        "slot_usable",
        "1 while the source keeps the log that the slot needs; 0 if it is or may soon be gone.",
        lambda s: _number(s.slot.usable) if s.slot else None,
    ),
    Gauge(
        "slot_unconfirmed_bytes",
        "Write-ahead log that the connector has not confirmed yet.",
        lambda s: _number(s.slot.unconfirmed_bytes) if s.slot else None,
    ),
    Gauge(
        "slot_limit_seconds",
        "Until the source gives the slot up, if the connector reads nothing; absent without limit.",
        lambda s: s.slot_seconds_left,
    ),
    Gauge(
        "source_wal_bytes_per_second",
        "What the source writes to its write-ahead log, over the last half minute.",
        lambda s: s.wal_bytes_per_second,
    ),
    Gauge(
        "slot_retained_warn_bytes",
        "Above so much retained log `run` warns; absent where it does not.",
        lambda s: _number(s.ground.retained.warn) if s.ground else None,
    ),
    Gauge(
        "slot_retained_limit_bytes",
        "Above so much retained log `run` does what is configured; absent without limit.",
        lambda s: _number(s.ground.retained.limit) if s.ground else None,
    ),
    Gauge(
        "topic_retention_unlimited",
        "1 while the stream's topic deletes nothing, as it must.",
        lambda s: _number(s.retention.unlimited) if s.retention else None,
    ),
    Gauge(
        "topic_retention_runway_seconds",
        "At least so long is the next record to apply still kept; absent where for ever.",
        lambda s: s.retention_seconds_left,
    ),
    Gauge(
        "target_clock_ahead_seconds",
        "How far the target's clock is ahead of the source's.",
        lambda s: s.target_ahead,
    ),
    Gauge(
        "target_fence_up",
        "1 while every table of the target is fenced against other writers.",
        lambda s: _number(s.fence.state == "up") if s.fence else None,
    ),
    Gauge(
        "target_fence_taken_off_tables",
        "Tables of the target from which somebody has taken the fence.",
        lambda s: _number(len(s.fence.taken_off)) if s.fence else None,
    ),
    Gauge(
        "target_lock_waiters",
        "Sessions that wait on the target for a lock of a migrated table, and ours for any.",
        lambda s: _number(s.target_server.lock_waiters) if s.target_server else None,
    ),
    Gauge(
        "target_lock_wait_seconds",
        "The longest of these waits; 0 where nobody waits.",
        lambda s: s.target_server.lock_wait_seconds if s.target_server else None,
    ),
)

LABELLED: Final = (
    LabelledGauge(
        "phase",
        "1 for the migration's phase.",
        "phase",
        lambda s: {str(one): float(one is s.phase) for one in Phase} if s.phase else {},
    ),
    LabelledGauge(
        "service_state",
        "1 for what the service is doing.",
        "state",
        lambda s: (
            {str(one): float(one is s.service.state) for one in ServiceState} if s.service else {}
        ),
    ),
    LabelledGauge(
        "schema_changes_pending",
        "Changes of the source's schema that the target does not have: tables at whose change the "
        "stream stands (waiting), changes that it has not come to (ahead).",
        "state",
        lambda s: {
            state: count
            for state, count in (("waiting", standing(s)), ("ahead", coming(s)))
            if count is not None
        },
    ),
    LabelledGauge(
        "ground_lost",
        "1 for each way in which changes are lost for good, by its error's code; 0 for the others.",
        "code",
        lambda s: (
            {code: float(code in {one.code for one in losses(s)}) for code in CODES}
            if s.ground
            else {}
        ),
    ),
    LabelledGauge(
        "validation_rules_not_kept",
        "Rules that the last check did not see kept, by severity.",
        "severity",
        lambda s: run["not_passed"] if (run := last_validation(s)) else {},
    ),
    LabelledGauge(
        "part_measured",
        "1 where the last measurement had an answer of this part, 0 where not.",
        "part",
        lambda s: s.measured,
    ),
    LabelledGauge(
        "connections",
        "Clients' connections to the server, to all of its databases.",
        "side",
        lambda s: {side: server.connections for side, server in _servers(s)},
    ),
    LabelledGauge(
        "connections_max",
        "How many there may be (max_connections).",
        "side",
        lambda s: {side: server.max_connections for side, server in _servers(s)},
    ),
    LabelledGauge(
        "database_bytes",
        "Size of the database.",
        "side",
        lambda s: {side: server.database_bytes for side, server in _servers(s)},
    ),
)


def _servers(sample: Sample) -> list[tuple[str, ServerSample]]:
    both = (("source", sample.source_server), ("target", sample.target_server))
    return [(side, server) for side, server in both if server is not None]
