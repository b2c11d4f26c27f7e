"""Reconcile a migration whose application writes all the time, clean and corrupted in turn.

Every comparison is the command itself, in a process of its own. What is planted and what became of
it is known to `corruptions`, which shares no code with the product.
"""

from __future__ import annotations

import json
import random
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdc_migrator.demo.digest import compare, digest_both
from tests.faults import alignment, corruptions
from tests.faults.bank import Bank
from tests.faults.corruptions import HotWriter, Judged, Plant, Planter, judge
from tests.support.live import LiveMigration, wait_for


@dataclass(frozen=True, slots=True)
class Round:
    """One comparison, and what came of it.

    Attributes:
        kind: ``clean``, ``planted`` or ``repaired`` (with ``--repair``, after planted ones).
        planted, found, overwritten: see `corruptions.Judged`.
        wrong: false alarms, and what was missed; empty if all is well.
    """

    kind: str
    seconds: float
    planted: int
    found: int
    overwritten: int
    wrong: tuple[str, ...]
    kinds: tuple[str, ...] = ()


class Reconciling:
    """The application and the service, at work; a context manager."""

    def __init__(self, directory: Path, stack: Any, source: str, target: str, seed: int) -> None:
        alignment.create(source)
        corruptions.create(source)
        self.live = LiveMigration(directory, f"recon{seed}", source, target, stack)
        self._source = source
        self._target = target
        self._random = random.Random(seed)
        self._planter = Planter(target, self._random)
        self._seed = seed
        self._stack = ExitStack()

    def __enter__(self) -> Reconciling:
        self._stack.callback(self.live.close)
        self.live.prepare()
        self.live.start("run")
        self._writers = ExitStack()
        self._stack.enter_context(self._writers)
        self.bank = self._writers.enter_context(Bank(self._source, 100, self._seed))
        self._writers.enter_context(alignment.LongWriters(self._source))
        self.hot = self._writers.enter_context(HotWriter(self._source, self._seed))
        # An application at rest leaves nothing to see of it but a heartbeat now and then.
        wait_for("the stream is applied", self.live.working)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def rounds(self, corrupted: int) -> list[Round]:
        """A clean comparison, one of `corrupted` rows, one that repairs, and a clean one again."""
        assert self.hot.failed is None, self.hot.failed
        done = [self._clean()]
        planted = self.plant(corrupted)
        kinds = tuple(one.kind for one in planted)
        began = time.monotonic()
        judged = judge(self._target, planted, self._reconcile())
        done.append(_round("planted", began, judged, len(planted), kinds))
        began = time.monotonic()
        repaired = self._reconcile("--repair")
        wrong = () if repaired["equal"] else ("not equal after the repair",)
        done.append(Round("repaired", time.monotonic() - began, 0, 0, 0, wrong))
        return [*done, self._clean()]

    def plant(self, count: int) -> list[Plant]:
        """Corruptions of so many kinds."""
        return self._planter.plant(tuple(self._random.sample(corruptions.KINDS, count)))

    def rest(self) -> None:
        """End the application and the service."""
        self._writers.close()
        for process in self.live.processes:
            self.live.stop(process)

    def settle(self) -> list[str]:
        """Stop the writers, drain, and compare everything by other means."""
        self._writers.close()
        self.live.drain()
        wrong = []
        for schema in ("bank", "proof"):
            both = digest_both(self._source, self._target, schema)
            wrong += [one.table for one in compare(*both) if not one.equal]
        return wrong

    def _clean(self) -> Round:
        began = time.monotonic()
        report = self._reconcile()
        wrong = tuple(
            f"false alarm: {table['table']} {one['kind']} {one.get('columns')}"
            for table in report["tables"]
            for one in table["differences"]
        )
        if not wrong and not report["equal"]:
            reasons = ((one["table"], one["unproven"]) for one in report["tables"])
            wrong = tuple(f"{table}: {reason}" for table, reason in reasons if reason) or (
                "not equal, and no difference is named",
            )
        return Round("clean", time.monotonic() - began, 0, 0, 0, wrong)

    def _reconcile(self, *arguments: str) -> dict[str, Any]:
        done = self.live.cli("reconcile", "-o", "json", *arguments, check=None)
        assert done.returncode in (0, 1), (
            f"{done.returncode}\n{done.stdout}\n{done.stderr}\n{self.live.log()[-2000:]}"
        )
        document: dict[str, Any] = json.loads(done.stdout)
        assert document["equal"] == (done.returncode == 0)
        return document


def _round(kind: str, began: float, judged: Judged, planted: int, kinds: tuple[str, ...]) -> Round:
    wrong = [f"missed: {one.kind} in {one.table} {one.key} hot={one.hot}" for one in judged.missed]
    wrong += [f"false alarm: {one}" for one in judged.invented]
    return Round(
        kind,
        time.monotonic() - began,
        planted,
        len(judged.found),
        len(judged.overwritten),
        tuple(wrong),
        kinds,
    )
