"""Whether the source may be left: one function for each gate, over one sample.

Pure: no clock, no driver; ages are taken from the sample's own moment. What was not measured, or
not inspected lately, is unknown, and unknown is not ready. The gates over what an inspection has
found are in `inspected`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from cdc_migrator.control.migration import Phase
from cdc_migrator.model.connector_failures import failure
from cdc_migrator.model.gates import Gate, fails, passes, unknown
from cdc_migrator.model.wording import few
from cdc_migrator.monitor import inspected
from cdc_migrator.monitor.ground import WAY_OUT, losses, retained_beyond
from cdc_migrator.monitor.limits import Limits
from cdc_migrator.monitor.sample import Sample
from cdc_migrator.monitor.schema_gate import schema_changes
from cdc_migrator.monitor.unknowns import GO_ON, early, not_measured, span, unanswered

_RUN = "Start `cdc-migrator run` (under a supervisor that restarts it)."
_COMPARE = (
    "Type `cdc-migrator reconcile --mode incremental` while `run` runs, or set "
    "reconcile.continuous, so that it compares all the time."
)
_NEVER = "it is not known whether the content of both sides was compared"


def gates(sample: Sample, limits: Limits) -> list[Gate]:
    """The answer of every gate, always all of them, in one order."""
    return [gate(sample, limits) for gate in GATES]


def measurement(sample: Sample, _: Limits) -> Gate:
    """Everything that was asked has answered."""
    name = "measurement"
    if not sample.notes:
        return passes(name, "source, target, Kafka and Connect have answered")
    return unknown(
        name,
        unanswered(sample),
        "Bring back what does not answer, or correct how it is reached; then look again.",
        parts={note.part: note.code for note in sample.notes},
    )


def load(sample: Sample, _: Limits) -> Gate:
    """Every table is loaded, has its indexes, and is part of the stream."""
    name = "load"
    if sample.phase is not None and sample.phase is not Phase.STREAM:
        return fails(name, early(sample.phase), GO_ON, phase=str(sample.phase))
    if sample.tables is None:
        return not_measured(name, sample, "the tables were not looked at")
    waiting = [table.source for table in sample.tables if table.joining]
    evidence = {"tables": len(sample.tables), "joining": waiting}
    if waiting:
        why = f"being added, and not done yet: {few(waiting)}"
        return fails(name, why, "Let `cdc-migrator migrate --no-run` end.", **evidence)
    return passes(name, f"{len(sample.tables)} tables are loaded", **evidence)


def tables(sample: Sample, _: Limits) -> Gate:
    """The source has no table that shall move and does not."""
    name = "tables"
    if sample.not_added is None:
        return not_measured(name, sample, "nobody looked for new tables on the source")
    evidence = {"not_added": list(sample.not_added)}
    if sample.not_added:
        return fails(
            name,
            f"not part of the migration: {few(sample.not_added)}",
            "`cdc-migrator migrate --no-run` adds what is not part yet, also while `run` runs; "
            "or name them in tables.exclude.",
            **evidence,
        )
    return passes(name, "every table that shall move does", **evidence)


def service(sample: Sample, _: Limits) -> Gate:
    """Somebody applies the stream."""
    name = "service"
    if sample.phase is not Phase.STREAM:
        return not_measured(name, sample, "")
    if sample.service is None:
        return fails(name, "the service does not run: nothing is applied", _RUN)
    state = str(sample.service.state)
    return passes(name, f"the service runs: {state}", state=state)


def error(sample: Sample, _: Limits) -> Gate:
    """Nothing has halted the migration."""
    name = "error"
    if sample.phase is None:
        return not_measured(name, sample, "")
    if sample.last_error is None:
        return passes(name, "no error stands")
    code = sample.last_error.get("code", "unknown code")
    remedy = sample.last_error.get("remedy") or "`cdc-migrator status` tells more."
    return fails(name, f"the last error stands: {code}", str(remedy), code=code)


def lag(sample: Sample, limits: Limits) -> Gate:
    """The target follows closely, and is not falling behind."""
    name, limit = "lag", limits.max_lag.total_seconds()
    if sample.phase is not Phase.STREAM:
        return not_measured(name, sample, "")
    now, known = sample.lag_seconds, sample.catch_up
    evidence = {
        "lag_seconds": now,
        "limit_seconds": limit,
        "applied_per_second": known.applied_per_second if known else None,
        "arriving_per_second": known.arriving_per_second if known else None,
    }
    wait = "Wait until it has caught up (`cdc-migrator status --watch`), or find what holds it up."
    if now is None:
        return unknown(name, "the lag is unknown", _RUN, **evidence)
    if now > limit:
        return fails(name, f"the lag of {now:.1f} s is above {limit:g} s", wait, **evidence)
    told = f"the lag is {now:.2f} s"
    # Close to the limit it matters where it goes.
    if now > limit / 2 and known is None:
        why = f"{told} of {limit:g} s, and whether it rises is not known"
        return unknown(name, why, wait, **evidence)
    if now > limit / 2 and known is not None and known.seconds is None:
        why = f"{told} of {limit:g} s, and no less arrives than is applied"
        return fails(name, why, wait, **evidence)
    return passes(name, told, **evidence)


def slot(sample: Sample, _: Limits) -> Gate:
    """The source keeps its log for the connector, which reads it."""
    name, there = "slot", sample.slot
    if there is None or sample.phase is None or not sample.phase.reached(Phase.CAPTURE):
        return not_measured(name, sample, "the replication slot was not looked at")
    evidence = {"slot": there.name, "active": there.active, "wal_status": there.wal_status}
    for loss in losses(sample):
        if loss.code in _OF_SOURCE:
            return fails(name, loss.cause, loss.remedy, code=loss.code, **evidence)
    if not there.exists:
        return fails(name, f"the replication slot {there.name} is gone from the source", WAY_OUT)
    if there.wal_status in ("unreserved", "lost"):
        why = f"the slot's write-ahead log is {there.wal_status}"
        return fails(name, why, WAY_OUT if there.wal_status == "lost" else _CAPTURE, **evidence)
    if not there.active:
        return fails(name, "nobody reads from the replication slot", _CAPTURE, **evidence)
    return passes(name, "the connector reads from the replication slot", **evidence)


_OF_SOURCE = frozenset({"CDCM-SLOT-LOST", "CDCM-SOURCE-CHANGED", "CDCM-PUBLICATION-LOST"})
_CAPTURE = "`cdc-migrator capture status` tells why; `cdc-migrator capture start` starts it."


def connector(sample: Sample, _: Limits) -> Gate:
    """The connector and all of its tasks run."""
    name, there = "connector", sample.connector
    if there is None or sample.phase is None or not sample.phase.reached(Phase.CAPTURE):
        return not_measured(name, sample, "the connector was not looked at")
    evidence = {"connector": there.name, "state": there.state, "tasks": list(there.tasks)}
    if not there.exists:
        return fails(name, f"the connector {there.name} does not exist", _CAPTURE)
    if not there.running:
        states = ", ".join([there.state or "unknown", *there.tasks])
        why = f"the connector does not run (connector and tasks: {states})"
        known = failure(there.trace)
        if known is not None:
            return fails(name, f"{why}: {known.cause}", known.remedy, code=known.code, **evidence)
        return fails(name, why, _CAPTURE, **evidence)
    return passes(name, "the connector and its tasks run", **evidence)


def runway(sample: Sample, limits: Limits) -> Gate:
    """What is still needed of the source's log and of the topic will be there for long enough."""
    name, there, kept = "runway", sample.slot, sample.retention
    for loss in losses(sample):
        if loss.code not in _OF_SOURCE:
            return fails(name, loss.cause, loss.remedy, code=loss.code)
    if there is None or kept is None:
        return not_measured(name, sample, "how long log and topic are kept is not known")
    log, topic = sample.slot_seconds_left, sample.retention_seconds_left
    least = limits.min_runway
    evidence = {
        "slot_safe_bytes": there.safe_bytes,
        "slot_seconds_left": log,
        "topic_unlimited": kept.unlimited,
        "topic_seconds_left": topic,
        "least_seconds": least.total_seconds(),
    }
    beyond, told = retained_beyond(sample)
    if beyond > 1 and told is not None:
        return fails(name, told, _CAPTURE, **evidence)
    if log is not None and log < least.total_seconds():
        why = f"the source's limit for the slot's log is reached in {span(timedelta(seconds=log))}"
        how = "Raise max_slot_wal_keep_size on the source, or set it to -1 until the cutover."
        return fails(name, f"{why} at the present rate", how, **evidence)
    if not kept.unlimited and (topic is None or topic < least.total_seconds()):
        left = f"for {span(timedelta(seconds=topic))} only" if topic is not None else "by its size"
        return fails(
            name,
            f"Kafka keeps what is not applied yet {left}",
            "Set retention.ms=-1, retention.bytes=-1 and cleanup.policy=delete on the topic.",
            **evidence,
        )
    if there.safe_bytes is not None and log is None:
        why = "how fast the source's limit for the slot's log comes nearer is not known"
        return unknown(name, why, _RUN, **evidence)
    return passes(name, "log and topic are kept for as long as they are needed", **evidence)


def applied(sample: Sample, _: Limits) -> Gate:
    """Nothing of the stream was parked, skipped or applied on suspicion."""
    name = "applied"
    if sample.tables is None or sample.stream is None or sample.parked is None:
        return not_measured(name, sample, "the stream's progress was not looked at")
    parked = sample.parked
    suspect = sample.stream.transactions_suspect
    ignored = [table.source for table in sample.tables if table.truncates_ignored]
    since = sample.freshness.doubts_since if sample.freshness else None
    oldest = sample.proofs.verified_as_of if sample.proofs else None
    settled = since is not None and oldest is not None and oldest >= since
    evidence = {
        "suspect_transactions": suspect,
        "truncates_ignored": ignored,
        "compared_since": settled,
        "parked": parked.keys,
        "dead_letters": parked.letters,
        "skipped": parked.skipped,
    }
    if parked.keys:
        return fails(
            name,
            f"{parked.letters} records of {parked.keys} keys are kept back",
            "`cdc-migrator dead-letters list` says why; `cdc-migrator dead-letters retry --all` "
            "applies them once the target accepts them.",
            **evidence,
        )
    if parked.skipped:
        return fails(
            name,
            f"the records of {parked.skipped} keys were given up",
            "`cdc-migrator reconcile --repair` writes their rows as the source has them.",
            **evidence,
        )
    if ignored and not settled:
        why = f"the source truncated {few(ignored)}, which was ignored: rows are left over"
        remedy = (
            "`cdc-migrator repair --rebuild` writes these tables anew while the stream runs, then "
            "`cdc-migrator reconcile` compares everything."
        )
        return fails(name, why, remedy, **evidence)
    if suspect and not settled:
        return fails(
            name,
            f"{suspect} transactions were applied although their start was not proven, "
            "and their tables were not compared since",
            "`cdc-migrator reconcile` compares all tables, which settles it.",
            **evidence,
        )
    return passes(name, "everything that came was applied", **evidence)


def equal(sample: Sample, _: Limits) -> Gate:
    """No row is known to differ."""
    name, known = "equal", sample.proofs
    if known is None:
        return not_measured(name, sample, _NEVER)
    evidence = {"open": known.open, "accepted": known.accepted}
    if known.open:
        how = "`cdc-migrator reconcile history` names them, `reconcile --repair` writes them anew."
        return fails(name, f"{known.open} rows differ", how, **evidence)
    return passes(name, "no row is known to differ", **evidence)


def verified(sample: Sample, limits: Limits) -> Gate:
    """Both sides were compared, and again what was written to since."""
    name, known = "verified", sample.proofs
    if known is None:
        return not_measured(name, sample, _NEVER)
    oldest = known.verified_as_of
    up_to = sample.freshness.up_to if sample.freshness else None
    evidence = {
        "oldest_proof": oldest.isoformat() if oldest else None,
        "compared_up_to": up_to.isoformat() if up_to else None,
        "tables_unproven": known.unproven_tables,
        "chunks_changed_since": known.dirty,
    }
    if oldest is None:
        why = f"the content of {known.unproven_tables} tables was never compared"
        how = "`cdc-migrator reconcile` compares them, also while `run` runs."
        return fails(name, why, how, **evidence)
    if up_to is None or sample.at - up_to > limits.max_compared_age:
        since = "what was written lately was not compared"
        if up_to is not None:
            since = f"what was written in the last {span(sample.at - up_to)} was not compared"
        return fails(name, since, _COMPARE, **evidence)
    if sample.at - oldest > limits.max_proof_age:
        why = f"the oldest proof is of {span(sample.at - oldest)} ago"
        return fails(name, why, _COMPARE, **evidence)
    why = f"all that was written until {span(sample.at - up_to)} ago was compared"
    return passes(name, why, **evidence)


def target_fence(sample: Sample, limits: Limits) -> Gate:
    """Nobody else can have written to the target."""
    name, there = "target-fence", sample.fence
    if there is None:
        return not_measured(name, sample, "nobody looked at the target's fence")
    evidence = {"state": there.state, "lacking": list(there.lacking)}
    if there.taken_off:
        return fails(
            name,
            "not fenced any more on the target, so others may have written there: "
            + few(there.taken_off),
            "`cdc-migrator run`, started again, fences them; then `cdc-migrator reconcile` shows "
            "what was written.",
            **evidence,
        )
    if limits.fence and there.lacking:
        why = f"not fenced on the target: {few(there.lacking)}"
        return fails(name, why, "`cdc-migrator run`, started again, fences them.", **evidence)
    if there.lacking:
        return passes(name, "the settings leave the target open to others", **evidence)
    return passes(name, "nobody else can write to the target", **evidence)


def way_back(sample: Sample, limits: Limits) -> Gate:
    """There is a way back to the source, or it is given up knowingly."""
    name, why, back = "way-back", limits.without_way_back, sample.way_back
    prepare = "`cdc-migrator way-back prepare` makes it and proves it."
    if back is None or not back.prepared:
        if why is not None:
            return passes(name, f"the way back is given up knowingly: {why}", given_up=why)
        if back is None:
            return unknown(name, "the source does not say whether there is a way back", prepare)
        given = "in cutover.without_way_back why none is needed."
        if back.within:
            cause = "there can be no way back: source and target are one database"
            return fails(name, cause, f"Say {given}", given_up=None)
        return fails(
            name,
            "there is no way back to the source once the target is open",
            f"{prepare} Or say {given}",
            given_up=None,
        )
    without = [there for _, there in back.without]
    evidence = {
        "lag_seconds": back.lag_seconds,
        "missing": back.missing,
        "without": without,
        "error": back.error,
    }
    if back.missing:
        cause = f"the way back lacks {few(back.missing)}, which came to the migration since"
        return fails(name, cause, prepare, **evidence)
    if back.error is not None:
        cause = f"the way back has stopped: {back.error}"
        return fails(name, cause, "`cdc-migrator way-back status` shows its remedy.", **evidence)
    if back.lag_seconds is None:
        cause = "nobody applies the way back"
        return fails(name, cause, "Start `cdc-migrator run`, which does.", **evidence)
    if back.lag_seconds > limits.max_lag.total_seconds():
        cause = f"the way back is behind by {back.lag_seconds:.0f} s"
        return fails(name, cause, "Wait; `cdc-migrator way-back status` shows it.", **evidence)
    told = f", knowingly without {few(without)}" if without else ""
    return passes(name, f"the way back is ready{told}", **evidence)


GATES: tuple[Callable[[Sample, Limits], Gate], ...] = (
    measurement,
    load,
    tables,
    service,
    error,
    schema_changes,
    lag,
    slot,
    connector,
    runway,
    applied,
    equal,
    verified,
    target_fence,
    inspected.target,
    inspected.schema,
    inspected.constraints,
    inspected.sequences,
    inspected.transactions,
    inspected.maintenance,
    inspected.source_fence,
    inspected.backup,
    inspected.hooks,
    inspected.validation,
    way_back,
)
