"""Strike at cutovers inside one database, until one has opened the new tables.

As `cutover_kills`, whose faults these are; but there is no way back, so a migration's life ends
with its first cutover that goes through. Where the command was killed before anything is decided,
chance says whether it is undone or gone on with.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psycopg

from tests.faults import within
from tests.faults.cutover_kills import CUTOVER, OTHERS, PLACES, Fault, Life, Strikes, cut
from tests.faults.cutover_kills import REST as RESTING
from tests.faults.switching import Switching
from tests.support.live import LiveMigration, one, wait_for

FAULTS = (
    *(Fault("command", place) for place in PLACES),
    # Both sides are one server, which is killed as the source.
    *(fault for fault in RESTING if fault.victim in OTHERS and fault.victim != "target"),
)
_PAUSE = 0.02  # of a writer between two commits: more than that CPU goes to writers alone
# Rows of the old tables that the new ones lack; writers only add to these by then.
_LOST = (
    "SELECT count(*) FROM (SELECT id, writer, number, note, 'old', length(note) FROM app.entry "
    "EXCEPT SELECT id, writer, number, remark, origin, size FROM next.entry) lost",
    "SELECT count(*) FROM (TABLE app.log EXCEPT ALL TABLE next.log) lost",
)


class WithinStrikes(Strikes):
    """A migration inside one database with its applications."""

    def __init__(self, live: LiveMigration, stack_dir: Path, seed: int) -> None:
        super().__init__(live, stack_dir)
        self._chance = random.Random(seed)

    def live_to_the_end(self, faults: Sequence[Fault], until: float) -> Life:
        """Strike at one cutover after the other until one is done; then let one go through."""
        life = Life()
        within.prepared(self._live)
        with within.applications(self._live, _PAUSE) as apps:
            wait_for("writers write", lambda: apps.commits() > 50)
            cut(self._live, "--rehearse")
            left = list(faults)
            try:
                while not life.ways and left and time.monotonic() < until:
                    self._go(left.pop(0), life, apps)
                if not life.ways:
                    self._go(None, life, apps)
            except AssertionError as error:
                life.wrong.append(f"{life.faults[-1:]}: {str(error)[-1500:]}")
        life.commits = apps.commits()
        life.wrong += apps.wrong(done=life.ways == 1, led=life.ways)
        if life.ways and not life.wrong:
            life.wrong += [f"{query}: rows are lost" for query in _LOST if self._count(query)]
        return life

    def _go(self, fault: Fault | None, life: Life, apps: Switching) -> None:
        if fault is not None:
            super()._go(fault, life, apps)
            return
        self._until_ready(life, CUTOVER)
        life.ways += cut(self._live, "--yes")["state"] == "done"
        assert life.ways, "nothing struck, and it did not go through"

    def _until_ready(self, life: Life, verb: str) -> None:
        # `status` takes long beside writers; only what was struck at from outside may be away.
        if life.faults and not life.faults[-1][0].startswith("command"):
            super()._until_ready(life, verb)
        self._serve()
        drained = self._live.drained()
        wait_for("the stream has come along", drained, 90, 0.1)

    def _end(self, verb: str) -> str:
        if self._chance.random() < 0.8:  # refused where the new tables are open already
            self._serve()
            self._live.cli(verb, "abort", check=None)
        return super()._end(verb)

    def _equal(self, apps: Switching) -> None:
        """While the old tables are written to, the new ones come to hold the same."""
        if {writer.side for writer in apps.writers} != {"source"}:
            return

        def equal() -> bool:
            self._serve()
            with suppress(psycopg.Error):
                return bool(one(self._live.source, within.APART) == 0)
            return False

        with apps.paused():
            wait_for("both schemas hold the same", equal, 90, 0.2)

    def _count(self, query: str) -> int:
        return int(one(self._live.source, query))
