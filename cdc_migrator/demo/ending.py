"""The last part of the plot: over to the target for good, the report, and nothing left behind.

The writers go on meanwhile, also while the migration is removed. At the end their account, from the
first commit on, is held against both databases, and each side is asked what is left there.
"""

from __future__ import annotations

import json

import psycopg

from cdc_migrator.demo import shop
from cdc_migrator.demo.digest import TableDigest, digest
from cdc_migrator.demo.driver import ask
from cdc_migrator.demo.report import Ended
from cdc_migrator.demo.scene import Ran, Scene
from cdc_migrator.demo.switches import account, cut_over, go_on, ready, switch
from cdc_migrator.demo.tally import Summary

_WRITE = "UPDATE shop.inventory SET quantity = quantity WHERE warehouse = 'LYON'"
_LEFT = """
SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())
     + (SELECT count(*) FROM pg_publication WHERE pubname LIKE 'cdcm%%')
     + (SELECT count(*) FROM pg_trigger t JOIN pg_proc p ON p.oid = tgfoid
        JOIN pg_namespace n ON n.oid = pronamespace
        WHERE n.nspname = 'cdc_migrator' AND %s)
"""


class Ending:
    """Plays the last part once, on a migration that has come back, under writers.

    Args:
        finish: end the migration; else it is left as it is.
    """

    def __init__(self, scene: Scene, finish: bool) -> None:
        self._scene = scene
        self._finish = finish
        self._done = Ran({}, 0.0)
        self._left: dict[str, TableDigest] = {}
        self._journals: dict[str, int] = {}
        self._status = ""
        self._removed = 0

    def play(self) -> None:
        """From the source to the target, and the end. Raises MigratorError as the commands do."""
        scene = self._scene
        ready(scene, "--wait", "20s")
        self._done = cut_over(scene, "cutover again", "--yes")
        scene.tell(
            "cdc-migrator cutover: the target is open for good, the source is fenced "
            f"({self._done.document['details']['stall_ms']:.0f} ms between)"
        )
        go_on(scene, scene.target)
        self._tell_everybody()
        if self._finish:
            self._remove()

    def judge(self, earlier: tuple[Summary, ...], summary: Summary) -> Ended:
        """What came of it, with the writers stopped.

        Args:
            earlier: of all writers that were there before. summary: of the last ones.
        """
        scene = self._scene
        return Ended(
            switch=switch(self._done.document, self._done.seconds, summary, "source", "target"),
            # The source follows the target on the way back until that is removed.
            account=account(scene, (*earlier, summary), summary.acknowledged["target"]),
            source_unchanged=digest(scene.source, *shop.SCHEMAS) == self._left
            if self._finish
            else None,
            source_refuses=self._source_refuses(),
            failed=sum(summary.failed.values()),
            status=self._status,
            report=str(scene.report_directory / "report.html"),
            journals=self._journals,
            finished=self._finish,
            removed=self._removed,
            left_behind=self._left_behind() if self._finish else 0,
        )

    def _tell_everybody(self) -> None:
        scene = self._scene
        scene.watch()
        scene.driver.call("report", "--to", str(scene.report_directory))
        said = json.loads((scene.report_directory / "report.json").read_text())["summary"]
        self._status = said["status"]
        share = said["availability"]["fraction"]
        scene.tell(
            f"cdc-migrator report: {self._status}; the shop could write for {share:.2%} of the time"
        )
        verified = scene.run("journal", "journal", "verify").document
        self._journals = {one["journal"]: one["entries"] for one in verified["journals"]}
        entries = " and ".join(f"{n} on the {side}" for side, n in self._journals.items())
        scene.tell(f"cdc-migrator journal verify: as it was written, {entries}")

    def _remove(self) -> None:
        scene = self._scene
        scene.driver.stop()
        done = scene.run("finish", "finish", "--yes")
        self._removed = len(done.document["removed"])
        scene.tell(
            f"cdc-migrator finish: {self._removed} things removed (slots, publications, "
            f"connectors, topics, fences, control schemas) in {done.seconds:.1f} s, under writes"
        )
        self._left = digest(scene.source, *shop.SCHEMAS)
        go_on(scene, scene.target)

    def _source_refuses(self) -> bool:
        """An application that was forgotten must not write there unheard."""
        try:
            with psycopg.connect(self._scene.source) as conn:
                conn.execute(_WRITE)
        except psycopg.errors.ReadOnlySqlTransaction:
            return True
        return False

    def _left_behind(self) -> int:
        """Slots, publications and triggers; the source's fence stays, and it alone."""
        source = int(str(ask(self._scene.source, _LEFT, False)))
        target = int(str(ask(self._scene.target, _LEFT, True)))
        schema = ask(self._scene.target, "SELECT to_regnamespace('cdc_migrator') IS NOT NULL")
        return source + target + bool(schema)
