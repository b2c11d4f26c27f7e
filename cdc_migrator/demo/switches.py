"""What the demo does at each switch, in either direction: ask for the verdict, type the command,
see writers on the other side, and hold their account against both databases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cdc_migrator.demo.ledger import read_by_writer, read_ledger, wait_for_every_kind
from cdc_migrator.demo.report import Account, Switch, Verdict, held_against, together
from cdc_migrator.demo.scene import Ran, Scene
from cdc_migrator.demo.tally import SIDES, Side, Summary
from cdc_migrator.demo.workload import ALL_KINDS

_KIND_SECONDS = 30.0
# A gate that a comparison settles: what was sent across a pause or a cut is in doubt until then.
_IN_DOUBT = "applied"
_DOUBTS = 3
_COMPARISONS = 4


def ready(scene: Scene, *options: str) -> None:
    """Ask `readiness`, and tell its verdict; where something is in doubt, compare and ask again."""
    for last in (False,) * _DOUBTS + (True,):
        said = scene.run("readiness", "readiness", *options, codes=(0, 3)).document
        gates = said["gates"]
        against = tuple(gate["name"] for gate in gates if gate["verdict"] != "pass")
        told = "yes" if said["verdict"] else f"no: {', '.join(against)}"
        scene.tell(
            f"cdc-migrator readiness: {told} ({len(gates) - len(against)} of {len(gates)} gates)"
        )
        if last or _IN_DOUBT not in against:
            break
        _settle(scene)
    scene.report.readiness.append(Verdict(len(gates), against))


def cut_over(scene: Scene, step: str, option: str) -> Ran:
    """Type `cutover`; where something has come into doubt since, compare and type it again.

    Raises Failed: CDCM-DEMO-COMMAND: something else stands against it.
    """
    for _ in range(_DOUBTS):
        ran = scene.run(step, "cutover", option, codes=(0, 3))
        against = (ran.document["error"] or {}).get("cause", "")
        if f"{_IN_DOUBT}: " not in against:
            break
        scene.tell(f"cdc-migrator cutover {option}: refused, {against}")
        _settle(scene)
    if ran.document["state"] not in ("done", "rehearsed"):
        ran = scene.run(step, "cutover", option)
    return ran


def _settle(scene: Scene) -> None:
    done = compare_all(scene, "reconcile what is in doubt", "full")
    scene.tell(
        f"cdc-migrator reconcile: {len(done.document['tables'])} tables are equal, nothing is in "
        f"doubt any more ({done.seconds:.1f} s)"
    )


def go_on(scene: Scene, dsn: str) -> None:
    """Until a transaction of each kind has committed there from now on."""
    wait_for_every_kind(dsn, read_ledger(dsn), ALL_KINDS, _KIND_SECONDS, scene.watch)


def switch(
    document: Mapping[str, Any], seconds: float, summary: Summary, left: Side, entered: Side
) -> Switch:
    """An attempt of `cutover` or `rollback` by its document, and the writers' own waits."""
    details = document["details"]
    return Switch(
        state=document["state"],
        open_ms=details.get("stall_ms"),
        waits=tuple(wait for wait in summary.waits if (wait.left, wait.entered) == (left, entered)),
        verified=bool(details.get("compared_inside", {}).get("finished")),
        seconds=seconds,
    )


def account(scene: Scene, runs: Iterable[Summary], maybe: Mapping[str, int]) -> Account:
    """Hold what was acknowledged, wherever it was, against what each side has.

    Args:
        runs: of all writers that there ever were.
        maybe: those of the commits on the target that need not have come to the source.
    """
    all_runs = list(runs)
    unsure = together(*(one.unsure for one in all_runs))
    every = together(*(counts for one in all_runs for counts in one.acknowledged.values()))
    there = {key: count - maybe.get(key, 0) for key, count in every.items()}
    held: dict[Side, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "source": held_against(read_by_writer(scene.source), there, together(unsure, maybe)),
        "target": held_against(read_by_writer(scene.target), every, unsure),
    }
    return Account(
        on_source=sum(sum(one.acknowledged["source"].values()) for one in all_runs),
        on_target=sum(sum(one.acknowledged["target"].values()) for one in all_runs),
        unsure=sum(unsure.values()),
        lost={side: held[side][0] for side in SIDES},
        strange={side: held[side][1] for side in SIDES},
    )


def compare_all(scene: Scene, step: str, mode: str) -> Ran:
    """Compare both sides until they are proven equal, or something differs.

    A table that writers truncate again and again may have to be read more than once. Raises as
    `Scene.run`.
    """
    for codes in (*((0, 1),) * (_COMPARISONS - 1), (0,)):
        done = scene.run(step, "reconcile", "--mode", mode, codes=codes)
        named = any(table["differences"] for table in done.document["tables"])
        if done.document["equal"] or named:
            break
    return done
