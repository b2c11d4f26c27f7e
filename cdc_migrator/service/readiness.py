"""Whether the source may be left: inspect, sample, and let the gates decide. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cdc_migrator.model.gates import Gate, ready
from cdc_migrator.monitor.gates import gates
from cdc_migrator.monitor.limits import Limits
from cdc_migrator.monitor.sample import Sample
from cdc_migrator.monitor.sampler import Sampler
from cdc_migrator.service.inspection import InspectOptions, inspect


@dataclass(frozen=True, slots=True)
class Readiness:
    """Every gate's answer, and the sample that they rest on."""

    sample: Sample
    gates: tuple[Gate, ...]

    @property
    def ready(self) -> bool:
        return ready(self.gates)

    @property
    def against(self) -> list[Gate]:
        """Those that are not passed."""
        return [gate for gate in self.gates if not gate.passed]


def look(options: InspectOptions, sampler: Sampler, limits: Limits) -> Readiness:
    """Look at everything anew.

    Raises: as `inspect`.
    """
    parts = inspect(options)
    sample = sampler.sample()
    # Those that could not be kept there count, too.
    sample = replace(sample, inspection={**(sample.inspection or {}), **parts})
    return Readiness(sample, tuple(gates(sample, limits)))
