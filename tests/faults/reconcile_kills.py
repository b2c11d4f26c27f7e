"""Kill the comparison, the repair, the rebuild and the service that carries them out; resume.

Afterwards every part of the comparison must be there once, with as many rows as the source had at
the part's own point; no repair may have been carried out twice; and both sides are equal.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import psycopg

from cdc_migrator.faultpoints import VARIABLE
from tests.faults.reconciling import Reconciling
from tests.support.fenced import let_in
from tests.support.live import LISTENS, one, wait_for

RECONCILE = ("reconcile", "--repair")
REBUILD = ("repair", "--rebuild", "proof.*")
_TRIES = 6


@dataclass(frozen=True, slots=True)
class Fault:
    """Who is killed while which command works: at the `times`-th pass of a place, or some time."""

    command: tuple[str, ...]
    service: bool
    place: str | None
    times: int = 1

    def __str__(self) -> str:
        who = "service" if self.service else "command"
        return f"{' '.join(self.command[:2])}: {who} at {self.place or 'random'}"


FAULTS = (
    *(
        Fault(RECONCILE, False, place, times)
        for place, times in (
            ("reconcile.planned", 3),
            ("reconcile.digested", 20),
            ("reconcile.writing", 12),
            ("reconcile.written", 30),
            ("reconcile.mended", 1),
            (None, 1),
        )
    ),
    *(Fault(REBUILD, False, p, 4) for p in ("rebuild.answered", "rebuild.proven", None)),
    *(
        Fault(RECONCILE, True, place, times)
        for place, times in (
            ("align.marked", 1),
            ("align.held", 1),
            ("align.reached", 1),
            ("align.repaired", 1),
            ("align.taken", 2),
            (None, 1),
        )
    ),
    *(
        Fault(REBUILD, True, place, 5)
        for place in ("rebuild.read", "rebuild.deleted", "rebuild.written", "align.repaired", None)
    ),
)


@dataclass(frozen=True, slots=True)
class Killed:
    """What came of one fault: kills, parts looked at, rows or ranges repaired, what is wrong."""

    fault: str
    kills: int
    parts: int
    repaired: int
    wrong: tuple[str, ...]


class Kills:
    """Strikes at a working migration, whose service it replaces when that dies."""

    def __init__(self, work: Reconciling, seed: int) -> None:
        self._work = work
        self._live = work.live
        self._random = random.Random(seed)
        self._service = work.live.processes[-1]

    def strike(self, fault: Fault) -> Killed:
        """Corrupt, begin to repair, kill, go on until it is through, and look at all of it."""
        armed = {VARIABLE: f"{fault.place}:{fault.times}:KILL"} if fault.place else {}
        if fault.service and armed:
            self._live.stop(self._service)
            self._serve(armed)
        planted = self._work.plant(6)
        if fault.command is REBUILD:
            self._spoil()
        audited = one(self._live.target, "SELECT coalesce(max(id), 0) FROM cdc_migrator.repair")
        command = self._start(fault.command, {} if fault.service else armed)
        victim = self._service if fault.service else command
        if fault.place is None:
            time.sleep(self._random.uniform(0.7, 2.5))
            victim.kill()
        wait_for(
            "somebody is struck, or it is through",
            lambda: command.poll() is not None or victim.poll() is not None,
        )
        kills = int(victim.poll() == -signal.SIGKILL)
        if fault.service:
            self._live.stop(self._service)
            self._serve({})
        command.communicate(timeout=120)
        run = self._finish(fault.command)
        wrong, parts = self._parts(run)
        repaired, twice = self._audit(audited, {(p.table, p.key) for p in planted})
        wrong += twice
        wrong += self._differences()
        return Killed(str(fault), kills, parts, repaired, tuple(wrong))

    def _serve(self, env: dict[str, str]) -> None:
        self._service = self._live.start("run", env=env)
        wait_for("the service listens", lambda: one(self._live.target, LISTENS))

    def _spoil(self) -> None:
        """More is wrong than anybody would name."""
        with let_in(self._live.target) as conn:
            conn.execute("SET session_replication_role = replica")
            conn.execute("UPDATE proof.plain SET word = again, again = word WHERE id % 3 = 0")
            conn.execute("DELETE FROM proof.plain WHERE id % 7 = 1")
            conn.execute(
                "INSERT INTO proof.plain SELECT -n, n FROM generate_series(1, 900) n "
                "ON CONFLICT DO NOTHING"
            )

    def _start(self, words: tuple[str, ...], env: dict[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.faults.small"),
                *("--config", str(self._live.config), *words, "-o", "json"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
        )

    def _typed(self, *words: str) -> subprocess.CompletedProcess[str]:
        process = self._start(words, {})
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def _differences(self) -> list[str]:
        """What a comparison says in the end; a truncated table may need two."""
        reasons: list[str] = []
        for _ in range(_TRIES):
            done = self._live.cli("reconcile", "-o", "json", check=None)
            if done.returncode == 0:
                return []
            assert done.returncode == 1, done.stderr
            tables = json.loads(done.stdout)["tables"]
            different = [t["table"] for t in tables if t["differences"]]
            if different:
                return [f"not equal in the end: {different}"]
            reasons.append(str([(t["table"], t["unproven"]) for t in tables if not t["equal"]]))
        return [f"not proven in the end: {reasons}"]

    def _finish(self, command: tuple[str, ...]) -> int | None:
        """Type it again until it is through; the comparison's number."""
        said = ""
        for _ in range(_TRIES):
            resume = ("--resume",) if command is RECONCILE and _resumable(self._live) else ()
            done = self._typed(*command, *resume)
            if done.returncode == 0:
                return json.loads(done.stdout).get("run")
            said = f"{done.returncode} {done.stdout[-500:]} {done.stderr[-500:]}"
            time.sleep(0.5)
        raise AssertionError(
            f"{command} does not come to its end: {said}\n{self._live.log()[-3000:]}"
        )

    def _parts(self, run: int | None) -> tuple[list[str], int]:
        """Whether all parts are there once, each with the rows that its own snapshot shows."""
        if run is None:
            return [], 0
        wrong = []
        with psycopg.connect(self._live.target, autocommit=True) as conn:
            rows = conn.execute(_PARTS, (run,)).fetchall()
        tables = {row[0] for row in rows}
        for table in tables:
            parts = [row[1:] for row in rows if row[0] == table]
            edges = [(low, high) for low, high, *_ in parts]
            joined = [None, *(high for _, high in edges)]
            if [low for low, _ in edges] != joined[:-1] or joined[-1] is not None:
                wrong.append(f"{table} has gaps or overlaps: {edges}")
            if not all(done for *_, done in parts):
                wrong.append(f"{table} is not through")
        with psycopg.connect(self._live.source, autocommit=True) as conn:
            for table, low, high, by, counted, sees, _ in rows:
                if table not in _COUNTED:
                    continue
                found = conn.execute(
                    _THERE.format(by=by, table=table).encode(),
                    {"low": low, "high": high, "sees": sees},
                ).fetchone()
                if found != (counted,):
                    wrong.append(f"{table} from {low} to {high}: {counted} rows, not {found}")
        if _COUNTED - tables:
            wrong.append(f"not compared: {_COUNTED - tables}")
        return wrong, len(rows)

    def _audit(self, after: int, planted: set[tuple[str, int | None]]) -> tuple[int, list[str]]:
        """How many rows were changed by repairs, and those that were more than once."""
        with psycopg.connect(self._live.target, autocommit=True) as conn:
            rows = conn.execute(_EFFECTS, (after,)).fetchall()
        wrong = [
            f"repaired {times} times: {table} {key}" for table, key, times in rows if times > 1
        ]
        keyed = {(t, int(k["id"])) for t, k, _ in rows if "id" in k}
        wrong += [f"repaired, and was not wrong: {one}" for one in sorted(keyed - planted)]
        return len(rows), wrong


def _resumable(live: Any) -> bool:
    state = "SELECT state FROM cdc_migrator.reconcile_run ORDER BY id DESC LIMIT 1"
    return one(live.target, state) in ("running", "stopped")


_PARTS = (
    "SELECT source_schema || '.' || source_table, low, high, ordered_by, rows, sees, done "
    "FROM cdc_migrator.reconcile_chunk WHERE run = %s ORDER BY 1, chunk"
)
# Tables whose rows never change on the source, though one of them grows: a row that is there now
# was there at a point exactly if the point's snapshot sees its inserting transaction.
_COUNTED = {"proof.grown", "proof.plain"}
_THERE = (
    "SELECT count(*) FROM {table} WHERE ({by} >= %(low)s::int8 OR %(low)s IS NULL) "
    "AND ({by} < %(high)s::int8 OR %(high)s IS NULL) "
    "AND pg_visible_in_snapshot(xmin::text::xid8, %(sees)s::pg_snapshot)"
)
_EFFECTS = (
    "SELECT source_schema || '.' || source_table, key, count(*) FROM cdc_migrator.repair "
    "WHERE id > %s AND (action = 'rebuilt' OR before <> after OR rows_before <> rows_after) "
    "GROUP BY 1, 2"
)
