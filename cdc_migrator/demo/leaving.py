"""The second part of the plot: the shop, with writers that never stop, goes over to the target.

A value is changed on the target behind the migration's back, found and repaired; then the way back
is prepared, and readiness, a rehearsal and the cutover, with the ordinary commands. The writers
follow the routing row and count for themselves.
"""

from __future__ import annotations

import time
from contextlib import suppress

import psycopg

from cdc_migrator.control import fence
from cdc_migrator.demo.driver import ask, until
from cdc_migrator.demo.report import Corruption
from cdc_migrator.demo.scene import Ran, Scene
from cdc_migrator.demo.switches import cut_over, go_on, ready
from cdc_migrator.errors import Failed

# No writer changes the stock of Lyon, so nothing but a repair can put this right again.
_TABLE, _COLUMN = "shop.inventory", "quantity"
_KEY = {"warehouse": "LYON", "product_id": "17"}
_CORRUPT = (
    "UPDATE shop.inventory SET quantity = quantity + 1 WHERE warehouse = 'LYON' AND product_id = 17"
)
_STOCK = "SELECT quantity FROM shop.inventory WHERE warehouse = 'LYON' AND product_id = 17"
# So far behind, at most, before the verdict is asked for.
_LAG_SECONDS = 1.0


class Leaving:
    """Plays the second part once, on a migration that streams and is equal, under writers."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._report = scene.report

    def play(self) -> tuple[Ran, Ran]:
        """From two equal sides to the target; the rehearsal and the cutover.

        Raises MigratorError where something fails.
        """
        scene = self._scene
        self._corrupt()
        self._reconcile()
        self._prepare_way_back()
        self._backup()
        until("the target follows", lambda: scene.alive() and scene.follows(_LAG_SECONDS), 120)
        ready(scene)
        rehearsed = cut_over(scene, "rehearsal", "--rehearse")
        scene.tell("cdc-migrator cutover --rehearse: everything short of it, and undone")
        ready(scene, "--wait", "20s")
        done = cut_over(scene, "cutover", "--yes")
        scene.tell(
            "cdc-migrator cutover: the target is open, the source is fenced "
            f"({done.document['details']['stall_ms']:.0f} ms between)"
        )
        since = time.monotonic()
        go_on(scene, scene.target)
        scene.step("run on the target", since)
        return rehearsed, done

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
        found = self._scene.run("reconcile", "reconcile", codes=(1,))
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
        mended = self._scene.run("repair", "reconcile", "--tables", _TABLE, "--repair")
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

    def _prepare_way_back(self) -> None:
        ran = self._scene.run("way back", "way-back", "prepare")
        took = ran.document["ping_seconds"]
        self._report.ping_seconds = took
        self._scene.tell(
            "cdc-migrator way-back prepare: a stream from the target to the source "
            f"({ran.seconds:.1f} s); a ping down it took {took * 1000:.0f} ms"
        )

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


def _told() -> str:
    return f"{_TABLE} {_key(_KEY)}"


def _key(key: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in key.items())
