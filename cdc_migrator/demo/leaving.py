"""The second part of the plot: the shop, with writers that never stop, goes over to the target.

A value is changed on the target behind the migration's back, found and repaired; then readiness,
a rehearsal and the cutover, with the ordinary commands. The writers follow the routing row and
count for themselves; at the end their count is held against both databases.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg

from cdc_migrator.control import fence
from cdc_migrator.demo import shop
from cdc_migrator.demo.digest import TableDigest, digest
from cdc_migrator.demo.driver import ask, until
from cdc_migrator.demo.ledger import read_by_writer, read_ledger, wait_for_every_kind
from cdc_migrator.demo.report import (
    Account,
    Corruption,
    Switch,
    Verdict,
    held_against,
    together,
)
from cdc_migrator.demo.scene import Scene
from cdc_migrator.demo.tally import SIDES, Side, Summary
from cdc_migrator.demo.workload import ALL_KINDS, Settings, WorkloadProcess
from cdc_migrator.errors import Failed

# No writer changes the stock of Lyon, so nothing but a repair can put this right again.
_TABLE, _COLUMN = "shop.inventory", "quantity"
_KEY = {"warehouse": "LYON", "product_id": "17"}
_CORRUPT = (
    "UPDATE shop.inventory SET quantity = quantity + 1 WHERE warehouse = 'LYON' AND product_id = 17"
)
_STOCK = "SELECT quantity FROM shop.inventory WHERE warehouse = 'LYON' AND product_id = 17"
_KIND_SECONDS = 30.0
# So far behind, at most, before the verdict is asked for.
_LAG_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Ran:
    """A command's document, and how many seconds it took."""

    document: dict[str, Any]
    seconds: float


class Leaving:
    """Plays the second part once, on a migration that streams and is equal.

    Args:
        before: of the writers that were there before.
    """

    def __init__(self, scene: Scene, before: Summary) -> None:
        self._scene = scene
        self._report = scene.report
        self._before = before

    def play(self) -> None:
        """From two equal sides to the target. Raises MigratorError where something fails."""
        scene = self._scene
        log = scene.directory / "workload.log"
        with WorkloadProcess(scene.source, Settings(), log, scene.target) as workload:
            scene.workload = workload
            scene.tell("writers start again, and do not stop any more")
            self._corrupt()
            self._reconcile()
            self._backup()
            until("the target follows", lambda: scene.alive() and scene.follows(_LAG_SECONDS), 120)
            self._ready()
            rehearsed = self._run("rehearsal", "cutover", "--rehearse")
            scene.tell("cdc-migrator cutover --rehearse: everything short of it, and undone")
            self._ready("--wait", "1m")
            done = self._run("cutover", "cutover", "--yes")
            left = digest(scene.source, *shop.SCHEMAS)
            scene.tell("cdc-migrator cutover: the target is open, the source is fenced")
            self._go_on()
            summary = self._report.followers = workload.stop()
        scene.workload = None
        self._report.rehearsal = _switch(rehearsed, summary, "source")
        self._report.cutover = _switch(done, summary, "target")
        self._report.account = self._account(summary, left)

    def _run(self, step: str, *arguments: str, codes: tuple[int, ...] = (0,)) -> _Ran:
        self._scene.alive()
        since = time.monotonic()
        document = self._scene.driver.ask(*arguments, codes=codes)
        return _Ran(document, self._scene.step(step, since))

    def _corrupt(self) -> None:
        """Change one value on the target; a stranger is refused, so it takes the fence's token."""
        with psycopg.connect(self._scene.target, autocommit=True) as conn:
            with suppress(psycopg.errors.ReadOnlySqlTransaction):
                conn.execute(_CORRUPT)
                raise Failed(
                    "CDCM-DEMO-UNFENCED",
                    "a stranger could write to the target, which is fenced",
                    "Run `cdc-migrator demo --keep` and look at `cdc-migrator status`.",
                )
            fence.present(conn)
            conn.execute(_CORRUPT)
        self._scene.tell(
            "a stranger's write to the target is refused; with the migration's own token one value "
            f"of {_told()} is changed there"
        )

    def _reconcile(self) -> None:
        found = self._run("reconcile", "reconcile", codes=(1,))
        named = [
            (table["table"], one["key"], one["columns"])
            for table in found.document["tables"]
            for one in table["differences"]
        ]
        for table, key, columns in named:
            self._scene.tell(
                f"cdc-migrator reconcile: {table} {_key(key)} differs in {', '.join(columns)} "
                f"(all tables, under writes, {found.seconds:.1f} s)"
            )
        mended = self._run("repair", "reconcile", "--tables", _TABLE, "--repair")
        same = ask(self._scene.source, _STOCK) == ask(self._scene.target, _STOCK)
        self._report.corruption = Corruption(
            table=_TABLE,
            key=_KEY,
            column=_COLUMN,
            named=named == [(_TABLE, _KEY, [_COLUMN])],
            repaired=same and mended.document["equal"],
            find_seconds=found.seconds,
            repair_seconds=mended.seconds,
        )
        self._scene.tell(f"cdc-migrator reconcile --tables {_TABLE} --repair: equal again")

    def _backup(self) -> None:
        since = time.monotonic()
        place = self._scene.backup
        self._scene.driver.call("backup", "create", str(place))
        self._scene.driver.call("backup", "verify", str(place))
        took = self._report.backup_seconds = self._scene.step("backup", since)
        self._scene.tell(
            "cdc-migrator backup create, backup verify: dumped, and restored for a test "
            f"({took:.1f} s)"
        )

    def _ready(self, *options: str) -> None:
        said = self._run("readiness", "readiness", *options, codes=(0, 3)).document
        gates = said["gates"]
        against = tuple(gate["name"] for gate in gates if gate["verdict"] != "pass")
        self._report.readiness.append(Verdict(len(gates), against))
        told = "yes" if said["verdict"] else f"no: {', '.join(against)}"
        self._scene.tell(
            f"cdc-migrator readiness: {told} ({len(gates) - len(against)} of {len(gates)} gates)"
        )

    def _go_on(self) -> None:
        """Until a transaction of each kind has committed on the target."""
        target = self._scene.target
        wait_for_every_kind(
            target, read_ledger(target), ALL_KINDS, _KIND_SECONDS, self._scene.watch
        )

    def _account(self, after: Summary, left: dict[str, TableDigest]) -> Account:
        scene, runs = self._scene, (self._before, after)
        source, target = (together(*(one.acknowledged[side] for one in runs)) for side in SIDES)
        unsure = together(*(one.unsure for one in runs))
        held: dict[Side, tuple[tuple[str, ...], tuple[str, ...]]] = {
            "source": held_against(read_by_writer(scene.source), source, unsure),
            # It has what came from the source, and what was written there.
            "target": held_against(read_by_writer(scene.target), together(source, target), unsure),
        }
        return Account(
            on_source=sum(source.values()),
            on_target=sum(target.values()),
            unsure=sum(unsure.values()),
            lost={side: held[side][0] for side in SIDES},
            strange={side: held[side][1] for side in SIDES},
            source_unchanged=digest(scene.source, *shop.SCHEMAS) == left,
        )


def _switch(ran: _Ran, summary: Summary, entered: Side) -> Switch:
    details = ran.document["details"]
    return Switch(
        state=ran.document["state"],
        open_ms=details.get("stall_ms"),
        waits=tuple(wait for wait in summary.waits if wait.entered == entered),
        verified=bool(details.get("compared_inside", {}).get("finished")),
        seconds=ran.seconds,
    )


def _told() -> str:
    return f"{_TABLE} {_key(_KEY)}"


def _key(key: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in key.items())
