"""The gate over changes of the source's schema that the target does not have yet. Pure."""

from __future__ import annotations

from typing import Any, Final

from cdc_migrator.control.migration import Phase
from cdc_migrator.model.gates import Gate, fails, passes
from cdc_migrator.model.wording import few
from cdc_migrator.monitor.limits import Limits
from cdc_migrator.monitor.sample import Sample
from cdc_migrator.monitor.unknowns import not_measured

# What a change of the schema halts the stream with.
HALTS: Final = frozenset(
    {
        "CDCM-SCHEMA-CHANGED",
        "CDCM-SCHEMA-MAPPED",
        "CDCM-SCHEMA-RELOAD",
        "CDCM-SCHEMA-SIDE",
    }
)
_GOES_ON = "`cdc-migrator run` goes on by itself once the target has it."


def schema_changes(sample: Sample, _: Limits) -> Gate:
    """The target has every change that the source's schema has met under way."""
    name, there = "schema-changes", sample.schema
    if there is None or sample.phase is not Phase.STREAM:
        return not_measured(name, sample, "nobody looked for changes of the source's schema")
    ahead = there.ahead
    evidence: dict[str, Any] = {
        "waiting": [
            {
                "table": one.table,
                "position": one.position,
                "changes": list(one.changes),
                "statements": list(one.statements),
            }
            for one in there.waiting
        ],
        "ahead": None if ahead is None else [{"table": a.table, "tag": a.tag} for a in ahead],
    }
    halt = _halt(sample)
    if there.waiting:
        told = few((f"{one.table} ({', '.join(one.changes)})" for one in there.waiting), "; ")
        why = f"the stream stands at a change of the source's schema: {told}"
        return fails(name, why, _remedy(sample, halt), **evidence)
    if halt is not None:
        remedy = halt.get("remedy") or "`cdc-migrator status` tells more."
        return fails(name, str(halt.get("cause", halt["code"])), str(remedy), **evidence)
    if ahead:
        tables = few(dict.fromkeys(one.table for one in ahead))
        return fails(
            name,
            f"the source has changed {tables}, and the stream has not come to it",
            "`cdc-migrator run` comes to it, and says there what the target lacks.",
            **evidence,
        )
    if ahead is None and sample.stream and sample.stream.source_committed_at:
        return not_measured(name, sample, "the source does not say what changes of it are ahead")
    return passes(name, "the stream stands at no change of the source's schema", **evidence)


def standing(sample: Sample) -> float | None:
    """At the changes of how many tables the stream stands."""
    if sample.schema is None:
        return None
    return float(len(sample.schema.waiting) or _halt(sample) is not None)


def coming(sample: Sample) -> float | None:
    """How many changes the stream has not come to."""
    if sample.schema is None or sample.schema.ahead is None:
        return None
    return float(len(sample.schema.ahead))


def _halt(sample: Sample) -> dict[str, Any] | None:
    known = sample.last_error
    return known if known is not None and known.get("code") in HALTS else None


def _remedy(sample: Sample, halt: dict[str, Any] | None) -> str:
    """The halt's own, which leaves out what the target has by now."""
    assert sample.schema is not None
    if halt is not None and halt.get("remedy"):
        return str(halt["remedy"])
    statements = dict.fromkeys(s for one in sample.schema.waiting for s in one.statements)
    told = f"Run on the target: {'; '.join(statements)}. " if statements else ""
    return f"{told}{_GOES_ON}"
