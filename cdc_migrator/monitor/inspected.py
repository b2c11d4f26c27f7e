"""The gates over what an inspection has found (`control.inspection` has the parts' shapes). Pure.

A part that was never looked at, could not be, or was looked at too long ago, is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from cdc_migrator.control import inspection
from cdc_migrator.control.migration import Phase
from cdc_migrator.model.gates import Gate, fails, passes, unknown
from cdc_migrator.model.wording import few
from cdc_migrator.monitor.limits import Limits
from cdc_migrator.monitor.sample import Sample
from cdc_migrator.monitor.unknowns import not_measured, span

_STALE = "what takes longer was not inspected lately"
_INSPECT = "`cdc-migrator readiness` does it at once; `run` does it again and again."
# Kinds of obstacles, as `cutover.obstacles` calls them.
_MAINTENANCE: Final = ("maintenance", "anti-wraparound vacuum")
_PREPARED: Final = "prepared transaction"
_SUBSCRIPTION: Final = "subscription"
_WRITER: Final = "writer"
_ALIKE: Final = {
    "schema": "tables, types, functions and views",
    "constraints": "keys, indexes and triggers",
}

Found = Mapping[str, Any]
Decide = Callable[[str, Found, Sample, Limits], Gate]


def _gate(name: str, part: str, decide: Decide) -> Callable[[Sample, Limits], Gate]:
    """The gate that `decide` answers, where `part` is known."""

    def gate(sample: Sample, limits: Limits) -> Gate:
        if sample.phase is not Phase.STREAM:
            return not_measured(name, sample, "")
        known = (sample.inspection or {}).get(part)
        if known is None or sample.at - known.at > limits.max_inspection_age:
            at = known.at.isoformat() if known else None
            return unknown(name, _STALE, _INSPECT, inspected_at=at)
        if broken := known.found.get("error"):
            why = f"the {part} could not be inspected: {broken['cause']}"
            remedy = broken.get("remedy") or _INSPECT
            return unknown(name, why, remedy, code=broken["code"])
        try:
            return decide(name, known.found, sample, limits)
        except KeyError:
            return unknown(name, f"another release has inspected the {part}", _INSPECT)

    return gate


def _differences(name: str, found: Found, _: Sample, limits: Limits) -> Gate:
    differing = [
        f"{one['kind']} {one['object']} ({one['attribute']})" for one in found["differences"]
    ]
    evidence = {key: found[key] for key in ("errors", "warnings", "differences")}
    waiting = found.get("deferred", ())
    if waiting:
        evidence["deferred"] = waiting
    later = f"; {few(waiting)} made when it is opened" if waiting else ""
    whole = found["errors"] + found["warnings"]
    if found["errors"] or (whole and limits.schema_differs is None):
        more = f" and {whole - 3} more" if whole > 3 else ""
        remedy = (
            "`cdc-migrator schema diff` shows each difference with the statement that mends it; "
            "or say in ready.schema_differs why those that rows survive may stay."
        )
        why = f"the target differs in {', '.join(differing[:3])}{more}"
        return fails(name, why, remedy, **evidence)
    if whole:
        why = f"{_ALIKE[name]} differ knowingly: {limits.schema_differs}{later}"
        return passes(name, why, **evidence)
    why = f"{_ALIKE[name]} are on the target as on the source{later}"
    return passes(name, why, **evidence)


def _sequences(name: str, found: Found, *_: Sample | Limits) -> Gate:
    failed = found["failed"]
    evidence = {"sequences": found["sequences"], "to_set": found["to_set"], "failed": failed}
    if failed:
        why = f"sequences that cannot be set: {few(one['sequence'] for one in failed)}"
        return fails(name, why, failed[0]["remedy"], **evidence)
    why = f"{found['sequences']} sequences are planned, {found['to_set']} will be set"
    return passes(name, why, **evidence)


def _transactions(name: str, found: Found, _: Sample, limits: Limits) -> Gate:
    limit = limits.max_transaction_age.total_seconds()
    prepared = [one for one in found["obstacles"] if one["kind"] == _PREPARED]
    long = [one for one in found["transactions"] if (one["seconds"] or 0.0) > limit]
    writers = [
        one
        for one in found["obstacles"]
        if one["kind"] == _WRITER and (one["seconds"] or 0.0) > limit
    ]
    evidence = {
        "limit_seconds": limit,
        "prepared": [one["name"] for one in prepared],
        "open": found["transactions"],
    }
    if prepared:
        names = few(repr(one["name"]) for one in prepared)
        why = f"prepared transactions hold tables of the source: {names}"
        return fails(name, why, f"{prepared[0]['remedy']}.", **evidence)
    if found_long := [*long, *writers]:
        first = max(found_long, key=lambda one: one["seconds"])
        since = f"{first['seconds']:.0f} s"
        why = f"a transaction of {first['name']} has been open on the source for {since}"
        remedy = f"Let it end, or SELECT pg_terminate_backend({first['pid']}) on the source."
        if first["pid"] is None:
            remedy = f"COMMIT PREPARED or ROLLBACK PREPARED {first['name']!r} on the source."
        return fails(name, why, remedy, **evidence)
    if not found["sees_all"]:
        why = "the source's role may not see how long transactions of others have been open"
        remedy = "GRANT pg_read_all_stats TO the role of the source's connection string."
        return unknown(name, why, remedy, **evidence)
    return passes(name, f"no transaction has been open for {limit:g} s", **evidence)


def _maintenance(name: str, found: Found, *_: Sample | Limits) -> Gate:
    there = [one for one in found["obstacles"] if one["kind"] in _MAINTENANCE]
    if there:
        first = there[0]
        whose = f" of {first['name']}" if first["name"] else ""
        why = f"the fence would wait for {first['kind']}{whose} on {few(first['tables'])}"
        return fails(name, why, f"{first['remedy']}.", obstacles=there)
    return passes(name, "no vacuum or index build is in the fence's way", obstacles=there)


def _source_fence(name: str, found: Found, *_: Sample | Limits) -> Gate:
    subscribed = [one for one in found["obstacles"] if one["kind"] == _SUBSCRIPTION]
    evidence = {"subscriptions": subscribed, "not_owned": found["not_owned"]}
    if subscribed:
        names = few(one["name"] for one in subscribed)
        why = f"the fence does not stop what subscriptions of the source write: {names}"
        return fails(name, why, f"{subscribed[0]['remedy']}.", **evidence)
    if found["not_owned"]:
        why = f"the source's role may not fence {few(found['not_owned'])}"
        remedy = "GRANT the owner's role to the role of the source's connection string."
        return fails(name, why, remedy, **evidence)
    return passes(name, "every table of the source can be fenced", **evidence)


def _target(name: str, found: Found, *_: Sample | Limits) -> Gate:
    evidence = {key: found[key] for key in ("in_recovery", "read_only", "not_owned")}
    if found["in_recovery"]:
        why = "the target is a standby: nothing can be written there"
        return fails(name, why, "Name the primary in the target's connection string.", **evidence)
    if found["read_only"]:
        why = (
            "the target refuses writes: its sessions are read-only (default_transaction_read_only)"
        )
        remedy = (
            "Unset it for the database and its roles, e.g. ALTER DATABASE … RESET "
            "default_transaction_read_only on the target."
        )
        return fails(name, why, remedy, **evidence)
    if found["not_owned"]:
        why = (
            f"the target's role does not own {few(found['not_owned'])}: it could not lift the fence"
        )
        remedy = "GRANT the owner's role to the role of the target's connection string."
        return fails(name, why, remedy, **evidence)
    return passes(name, "the target takes writes", **evidence)


def _backup(name: str, found: Found, sample: Sample, limits: Limits) -> Gate:
    known, limit = found["backup"], limits.max_backup_age
    if limit is None:
        return passes(name, "no backup is asked for (backup.required)", backup=known)
    remedy = (
        "`cdc-migrator backup create DIRECTORY` and `backup verify`, or stand for one of your own "
        "with `backup note`."
    )
    if known is None:
        return fails(name, "there is no backup of the source to rely on", remedy, backup=None)
    age = sample.at - datetime.fromisoformat(known["taken_at"])
    if age > limit:
        why = f"the latest backup is {span(age)} old, above {span(limit)}"
        return fails(name, why, remedy, backup=known)
    return passes(name, f"a backup was taken {span(age)} ago", backup=known)


def _hooks(name: str, found: Found, _: Sample, limits: Limits) -> Gate:
    known = found["rehearsal"]
    if limits.hooks is None:
        why = "no hook is configured: people tell the applications where to go"
        return passes(name, why, rehearsal=known, hooks=None)
    remedy = "`cdc-migrator cutover --rehearse` does everything short of the switch."
    if known is None:
        return fails(name, "the hooks were never rehearsed", remedy, rehearsal=None)
    if known["hooks"] != limits.hooks:
        why = "the hooks were changed since they were rehearsed"
        return fails(name, why, remedy, rehearsal=known)
    return passes(name, f"the hooks were rehearsed at {known['ended_at'][:19]}", rehearsal=known)


def _validation(name: str, found: Found, sample: Sample, limits: Limits) -> Gate:
    run = found["run"]
    check = "`cdc-migrator validate` checks them, also while `run` runs."
    stale = None
    if run is None:
        stale = "the rules were never checked"
    elif run["rules"] != limits.rules:
        stale = "the rules were changed since they were checked"
    elif (age := sample.at - datetime.fromisoformat(run["ended_at"])) > limits.max_rules_age:
        stale = f"the rules were checked {span(age)} ago, above {span(limits.max_rules_age)}"
    if stale is not None and limits.stale_rules_pass:
        return passes(name, f"{stale}, which validate.stale lets pass", run=run)
    if stale is not None or run is None:
        return fails(name, stale or "", check, run=run)
    blockers = [one for one in run["against"] if one["severity"] == "blocker"]
    if not run["passed"]:
        wrong = run["not_passed"].get("blocker", len(blockers))
        why = f"{wrong} rules are not kept: {few(one['name'] for one in blockers)}"
        how = "`cdc-migrator validate` says by what, with the statements to look closer."
        return fails(name, why, how, run=run)
    others = sum(run["not_passed"].values())
    whole = sum(run["counted"].values())
    why = f"{whole} rules were checked {span(age)} ago"
    return passes(
        name, f"{why}; {others} are not kept and block nothing" if others else why, run=run
    )


def last_validation(sample: Sample) -> Found | None:
    """The last run in which all rules were looked at; None where none is known."""
    known = (sample.inspection or {}).get(inspection.VALIDATION)
    return known.found.get("run") if known else None


_validated = _gate("validation", inspection.VALIDATION, _validation)


def validation(sample: Sample, limits: Limits) -> Gate:
    """The rules that stand in the settings are kept."""
    if limits.rules is None and sample.phase is Phase.STREAM:
        return passes("validation", "no rule is configured (validate.rules)", run=None)
    return _validated(sample, limits)


target = _gate("target", inspection.TARGET, _target)
schema = _gate("schema", inspection.SCHEMA, _differences)
constraints = _gate("constraints", inspection.CONSTRAINTS, _differences)
sequences = _gate("sequences", inspection.SEQUENCES, _sequences)
transactions = _gate("transactions", inspection.SOURCE, _transactions)
maintenance = _gate("maintenance", inspection.SOURCE, _maintenance)
source_fence = _gate("source-fence", inspection.SOURCE, _source_fence)
backup = _gate("backup", inspection.PREPARATIONS, _backup)
hooks = _gate("hooks", inspection.PREPARATIONS, _hooks)
