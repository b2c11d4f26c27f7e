"""How the schema is brought over, and how the sessions that build indexes are set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SchemaOptions:
    """How the schema is brought over.

    Attributes:
        jobs: indexes and keys built at a time, each by a session of its own.
        memory: bytes of ``maintenance_work_mem`` for each, at most; None: as the target has it.
        parallel: ``max_parallel_maintenance_workers`` for each; None: as the target has it.
        postgres_bin: directory of pg_dump and pg_restore; None: searched.
        grants: who may do what comes along; the roles must be there.
    """

    jobs: int = 2
    memory: int | None = None
    parallel: int | None = None
    postgres_bin: Path | None = None
    grants: bool = False

    @property
    def settings(self) -> dict[str, str]:
        """The run-time settings of the sessions that build."""
        memory = None if self.memory is None else f"{max(self.memory // 1024, 1024)}kB"
        parallel = None if self.parallel is None else str(self.parallel)
        given = {"maintenance_work_mem": memory, "max_parallel_maintenance_workers": parallel}
        return {name: value for name, value in given.items() if value is not None}
