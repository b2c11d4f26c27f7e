"""Whatever strikes the applier, and wherever: no row is lost, doubled or altered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.crash import ANYWHERE, CUTS, FAULTS, RESTARTS, STOP, Crash, Fault
from tests.faults.places import PLACES

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]

# `make prove-crash` strikes at every place; here it is those that tell most.
KILLS = tuple(
    Fault("kill", f"apply.{place}")
    for place in (
        "advance.after",
        "copy.within",
        "straight.within",
        "insert_finals.before",
        "delete_equal.after",
        "truncate.after",
        "commit.before",
        "commit.after",
    )
)
STRIKES = (*KILLS, CUTS[0], STOP, CUTS[3], RESTARTS[0], CUTS[4], RESTARTS[1])


@pytest.fixture
def crash(stack: Any, source_db: str, target_db: str, tmp_path: Path) -> Iterator[Crash]:
    with Crash(tmp_path, "crash", source_db, target_db, stack) as crash:
        yield crash


@pytest.mark.usefixtures("local_stack")
def test_no_fault_loses_doubles_or_alters_a_row(crash: Crash) -> None:
    """Each kind of fault, one after the other, under writers and a reader that sees no half."""
    struck = []
    for seed, fault in enumerate(STRIKES):
        done = crash.strike(fault, seed)
        print(*done, sep="\n")
        struck += done
    assert crash.settle() == []
    kinds = Counter(strike.kind for strike in struck)
    assert kinds.keys() == {fault.kind for fault in FAULTS}
    assert sum(strike.inside for strike in struck) > len(struck) / 2
    assert crash.reader.states > len(struck)
    assert crash.bank.committed > 1000


def test_the_matrix_has_every_place_and_what_is_struck_here_is_of_it() -> None:
    """Both lists name the same faults."""
    assert set(STRIKES) | {ANYWHERE} <= set(FAULTS)
    assert {fault.what for fault in FAULTS if fault.kind == "kill"} == {*PLACES, "anywhere"}
