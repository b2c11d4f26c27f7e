"""What a gate cannot say, and why: in every gate's same words, so that it is told once. Pure."""

from __future__ import annotations

from datetime import timedelta

from cdc_migrator.control.migration import Phase
from cdc_migrator.model.gates import Gate, unknown
from cdc_migrator.monitor.sample import Sample

GO_ON = "`cdc-migrator migrate` goes on where it stopped."


def not_measured(name: str, sample: Sample, otherwise: str) -> Gate:
    """The migration is not so far yet, or what did not answer, or `otherwise`."""
    if sample.phase is None:
        return unknown(name, unanswered(sample) or "the migration's phase is unknown")
    if sample.phase is not Phase.STREAM:
        return unknown(name, early(sample.phase), GO_ON)
    return unknown(name, unanswered(sample) or otherwise)


def early(phase: Phase) -> str:
    """What keeps most gates from being asked at all."""
    return f"the phase is {phase}, not {Phase.STREAM}"


def unanswered(sample: Sample) -> str:
    """What did not answer; empty where all did."""
    return "; ".join(f"{n.part} could not be measured: {n.cause}" for n in sample.notes)


def span(age: timedelta) -> str:
    """``45 s``, ``12 min``, ``3.5 h``, ``9.1 days``."""
    seconds = max(age.total_seconds(), 0.0)
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"
