"""The third part of the plot: something breaks on the target, and the shop goes back by itself.

A function that fails is deployed there, as a release might do it: orders fail, the rest goes on. A
rule of `watch` sees it, and `run` goes back; nobody types anything. Then the writers stop, and what
was acknowledged to them on either side must be there on both.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import psycopg

from cdc_migrator.demo import shop
from cdc_migrator.demo.digest import compare, digest_both
from cdc_migrator.demo.driver import ask, until
from cdc_migrator.demo.report import Returned
from cdc_migrator.demo.scene import Ran, Scene
from cdc_migrator.demo.switches import account, compare_all, go_on, switch
from cdc_migrator.demo.tally import Summary

# The watching that the demo asks for; see `docs/watch.md`. Some 5 % of the shop's transactions are
# rolled back on a good day. Servers count once a second, so looking more often would see nothing.
RULES = """
watch:
  every: 1s
  settle: 2s
  rules:
    - kind: error_rate
      threshold: 10%
      for: 2s
      action: rollback
"""
# A trigger, and no constraint: once the shop is back, the stream passes it on the target.
BREAK = (
    "CREATE FUNCTION shop.check_credit() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'the credit bureau does not answer'; END $$",
    "CREATE TRIGGER check_credit BEFORE INSERT ON shop.orders "
    "FOR EACH ROW EXECUTE FUNCTION shop.check_credit()",
)
MEND = ("DROP TRIGGER check_credit ON shop.orders", "DROP FUNCTION shop.check_credit()")
_DONE = "SELECT acted_at IS NOT NULL FROM cdc_migrator.watch_firing ORDER BY id DESC LIMIT 1"
_BACK_SECONDS = 120.0
# Not often: whoever looks makes transactions, too, which do not fail.
_LOOK_SECONDS = 0.25


class Returning:
    """Plays the third part once, on a target that is open, under writers."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._broken_at = datetime.now(UTC)
        self._firing: dict[str, Any] = {}
        self._rolled_back = Ran({}, 0.0)

    def play(self) -> None:
        """From the target back to the source. Raises MigratorError where something fails."""
        scene, since = self._scene, time.monotonic()
        self._break()
        until("a rule has rolled back", self._is_back, _BACK_SECONDS, _LOOK_SECONDS)
        scene.step("until it is rolled back", since)
        self._firing = scene.driver.ask("watch", "list")["firings"][0]
        self._rolled_back = scene.run("rollback status", "rollback", "status")
        fired, done = self._firing, self._rolled_back.document["cutover"]
        scene.tell(
            f"cdc-migrator watch: {fired['rule']} {fired['number']:.1%}, above "
            f"{fired['threshold']:.0%} for {fired['for_seconds']:g} s, fired "
            f"{self._after(fired['at']):.1f} s after that; `run` rolls back by itself"
        )
        scene.tell(
            f"cdc-migrator rollback status: {done['state']}; the source is open again "
            f"{self._after(done['opened_at']):.1f} s after the failure began"
        )
        since = time.monotonic()
        go_on(scene, scene.source)
        scene.step("back on the source", since)
        compared = compare_all(scene, "reconcile after", "incremental")
        scene.tell(
            f"cdc-migrator reconcile --mode incremental: all {len(compared.document['tables'])} "
            f"tables and partitions are equal (under writes, {compared.seconds:.1f} s)"
        )

    def judge(self, before: Summary, summary: Summary) -> Returned:
        """What came of it, with the writers stopped.

        Args:
            before: of the writers that were there before. summary: of those that went there and
                back.
        """
        scene, since = self._scene, time.monotonic()
        applied = scene.marker()
        until("everything is applied", lambda: scene.alive() and applied(), 120)
        tables = compare(*digest_both(scene.source, scene.target, *shop.SCHEMAS))
        fired, done = self._firing, self._rolled_back.document["cutover"]
        back = Returned(
            rule=fired["rule"],
            number=fired["number"],
            threshold=fired["threshold"],
            for_seconds=fired["for_seconds"],
            fired_after=self._after(fired["at"]),
            open_after=self._after(done["opened_at"]),
            failed=sum(summary.failed.values()),
            switch=switch(done, self._after(done["ended_at"]), summary, "target", "source"),
            account=account(scene, (before, summary), {}),
            tables=tables,
        )
        scene.step("account after the way back", since)
        equal = sum(table.equal for table in tables)
        there = "all there, once" if back.account.complete else "NOT AS THEY SHOULD BE"
        scene.tell(
            f"writers stop to be counted: {back.account.on_source:,} commits acknowledged on the "
            f"source and {back.account.on_target:,} on the target, {there}; by plain SQL "
            f"{equal} of {len(tables)} tables are equal"
        )
        return back

    def mend(self) -> None:
        """Take the cause away."""
        with psycopg.connect(self._scene.target) as conn:
            for statement in MEND:
                conn.execute(statement)
        self._scene.tell("the function that failed is removed from the target")

    def _break(self) -> None:
        with psycopg.connect(self._scene.target) as conn:
            for statement in BREAK:
                conn.execute(statement)
        with psycopg.connect(self._scene.target, autocommit=True) as conn:
            row = conn.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        self._broken_at = row[0]
        self._scene.tell("a function that fails is deployed on the target: no order goes through")

    def _is_back(self) -> bool:
        self._scene.watch()
        return bool(ask(self._scene.target, _DONE))

    def _after(self, moment: str) -> float:
        """Seconds from the failure to that moment."""
        return round((datetime.fromisoformat(moment) - self._broken_at).total_seconds(), 2)
