"""Hooks as a cutover has them, run here or in a process that is killed on its way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.conninfo import conninfo_to_dict
from pydantic import TypeAdapter

from cdc_migrator.config.hooks import Hook as Configured
from cdc_migrator.cutover.hooks.base import Context, Hook, Moment, Ran, Side, opened, run_all
from cdc_migrator.cutover.hooks.make import make
from cdc_migrator.faultpoints import VARIABLE

_CONFIGURED: TypeAdapter[Any] = TypeAdapter(tuple[Configured, ...])


def configured(*hooks: Mapping[str, Any]) -> tuple[Any, ...]:
    """The settings of these hooks, as migration.yaml would give them."""
    return tuple(_CONFIGURED.validate_python(hooks))


@dataclass(frozen=True, slots=True)
class Cutover:
    """Hooks between two databases."""

    source: str
    target: str
    hooks: Sequence[Mapping[str, Any]]

    def made(self) -> list[Hook]:
        return make(configured(*self.hooks), "m", self.source, self.target)

    def context(self, side: Side = "target") -> Context:
        return Context("m", 7, side, _public(self.source), _public(self.target))

    def run(self, moment: Moment, hooks: Sequence[Hook] | None = None) -> list[Ran]:
        """All of them, at a moment of going forward, or of the way back from there."""
        context = self.context("source" if moment is Moment.UNDO else "target")
        if hooks is not None:
            return run_all(hooks, moment, context)
        with opened(self.made()) as fresh:
            return run_all(fresh, moment, context)

    def begin(self, moment: Moment, fault: str | None = None) -> subprocess.Popen[bytes]:
        """The same in a process of its own, which may be told where to die."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CDC_MIGRATOR_")}
        if fault is not None:
            environment[VARIABLE] = fault
        told = json.dumps([self.source, self.target, list(self.hooks), moment], default=str)
        return subprocess.Popen([sys.executable, "-m", __name__, told], env=environment)


def _public(dsn: str) -> dict[str, str]:
    return {k: str(v) for k, v in conninfo_to_dict(dsn).items() if k != "password" and v}


def _main() -> None:
    source, target, hooks, moment = json.loads(sys.argv[1])
    Cutover(source, target, hooks).run(Moment(moment))


if __name__ == "__main__":
    _main()
