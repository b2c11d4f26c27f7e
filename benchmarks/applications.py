"""Applications that follow the routing row through a switchover, in a process of their own.

Writers commit small transactions at a fixed rate. Who is refused by the fence waits for the row of
`cdc_migrator.route`, which the process reads every two milliseconds as long as somebody is refused;
then it opens a session on the other side and writes there. One probe a side tries all the time
whether it takes writes.

Run as a module it reads one line of JSON (`Task`), says ``writing`` when all writers write, and
ends by itself when all of them have written on the target for a moment: its last line is `Outcome`.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field

import psycopg

from tests.faults.switching import SIDES, Probe

_POLL_SECONDS = 0.002
# A fence may also be lifted again: who was refused tries the same side every so often.
_RETRY_SECONDS = 0.05
_WARM_SECONDS = 60.0
_AFTERWARDS_SECONDS = 0.5
_ROUTE = "SELECT side FROM cdc_migrator.route"


@dataclass(frozen=True, slots=True)
class Task:
    """Where to write, and how often: `rate` transactions a second of all writers together."""

    source: str
    target: str
    writers: int
    rate: float


@dataclass(frozen=True, slots=True)
class Crossing:
    """One writer's way over, in milliseconds.

    Attributes:
        stall: from the last commit that the source acknowledged to the target's first one.
        refused: from that last commit to the first refusal: its own pause, then the fence's lock.
        routed: from there until the process had read that the target is where to go.
        connected: from there until the new session was open.
        written: from there to the first commit.
    """

    stall: float
    refused: float
    routed: float
    connected: float
    written: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the applications saw. `wrong` is empty where nothing is lost, doubled or open twice."""

    commits: int
    rate: float
    crossings: list[Crossing]
    wrong: list[str]


class Route:
    """The process's one reader of the routing row."""

    def __init__(self, dsn: str, stop: threading.Event) -> None:
        self._dsn = dsn
        self._stop = stop
        self._asked = threading.Event()
        self.moved = threading.Event()
        self.seen_at = 0.0

    def wait(self) -> bool:
        """Whether the row says within a while that the target is where to go."""
        self._asked.set()
        return self.moved.wait(_RETRY_SECONDS)

    def run(self) -> None:
        """Read the row while somebody wants to know."""
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            while not self._stop.is_set() and not self.moved.is_set():
                if not self._asked.wait(_RETRY_SECONDS):
                    continue
                self._asked.clear()
                until = time.monotonic() + 2 * _RETRY_SECONDS
                while time.monotonic() < until:
                    if conn.execute(_ROUTE).fetchone() == ("target",):
                        self.seen_at = time.monotonic()
                        self.moved.set()
                        break
                    time.sleep(_POLL_SECONDS)


@dataclass
class Writer:
    """One session's worth of an application."""

    number: int
    dsns: dict[str, str]
    pause: float
    route: Route
    stop: threading.Event
    side: str = "source"
    numbers: int = 0
    acknowledged: list[int] = field(default_factory=list)
    # By the monotonic clock; refused: the first refusal since the last commit.
    last_old: float = 0.0
    refused: float | None = None
    connected: float = 0.0
    first_new: float | None = None
    failed: str | None = None

    def run(self) -> None:
        """Write on the source, then on the target, until told to stop."""
        try:
            while not self.stop.is_set():
                with psycopg.connect(self.dsns[self.side], autocommit=True) as conn:
                    self.connected = time.monotonic()
                    self._stay(conn)
        except Exception as error:
            self.failed = f"{type(error).__name__}: {error}"

    def _stay(self, conn: psycopg.Connection) -> None:
        """Write until the route leads elsewhere."""
        # Not all at once; but who comes over has been waiting.
        due = time.monotonic()
        if self.side == "source":
            due += self.number / 100 % self.pause
        while not self.stop.wait(max(0.0, due - time.monotonic())):
            try:
                self._write(conn)
            except psycopg.errors.ReadOnlySqlTransaction:
                self.refused = self.refused or time.monotonic()
                if self.route.wait():
                    self.side = "target"
                    return
            else:
                # What was missed while it waited is not caught up with.
                due = max(due + self.pause, time.monotonic())

    def _write(self, conn: psycopg.Connection) -> None:
        self.numbers += 1
        mine = (self.number, self.numbers)
        with conn.transaction():
            conn.execute("INSERT INTO app.entry (writer, number) VALUES (%s, %s)", mine)
            conn.execute(
                "UPDATE app.total SET entries = entries + 1 WHERE writer = %s", (self.number,)
            )
            conn.execute("INSERT INTO app.log VALUES (%s, %s)", mine)
        now = time.monotonic()
        self.acknowledged.append(self.numbers)
        if self.side == "source":
            self.last_old, self.refused = now, None
        elif self.first_new is None:
            self.first_new = now

    def crossing(self) -> Crossing | None:
        """None: it has not come over."""
        if self.first_new is None or self.refused is None:
            return None
        # Who was still pausing when the row had changed need not wait for it.
        routed = max(self.refused, self.route.seen_at)
        points = (self.last_old, self.refused, routed, self.connected, self.first_new)
        parts = (round((b - a) * 1000, 2) for a, b in itertools.pairwise(points))
        return Crossing(round((self.first_new - self.last_old) * 1000, 2), *parts)


class Applications:
    """All of them, at work for the length of the block."""

    def __init__(self, task: Task) -> None:
        dsns = {"source": task.source, "target": task.target}
        self._dsns = dsns
        self._stop = threading.Event()
        self._began = time.monotonic()
        route = Route(task.source, self._stop)
        pause = task.writers / task.rate
        self._writers = [Writer(n, dsns, pause, route, self._stop) for n in range(task.writers)]
        self._probes = {side: Probe(side, dsns[side], self._stop) for side in SIDES}
        runs = [one.run for one in (*self._writers, route, *self._probes.values())]
        self._threads = [threading.Thread(target=run, daemon=True) for run in runs]

    def __enter__(self) -> Applications:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def writing(self) -> bool:
        """Whether each writer has committed, or has failed."""
        return all(one.acknowledged or one.failed for one in self._writers)

    def over(self) -> bool:
        """Whether each has committed on the target, or has failed."""
        return all(one.first_new is not None or one.failed for one in self._writers)

    def outcome(self) -> Outcome:
        """What they saw, once they have ended."""
        commits = sum(len(one.acknowledged) for one in self._writers)
        crossings = [one.crossing() for one in self._writers]
        return Outcome(
            commits,
            round(commits / (time.monotonic() - self._began), 1),
            [one for one in crossings if one is not None],
            [*self._wrong(), *(["a writer did not come over"] if None in crossings else [])],
        )

    def _loaded(self, side: str) -> tuple[object, ...] | None:
        with psycopg.connect(self._dsns[side], autocommit=True) as conn:
            return conn.execute(
                "SELECT count(*), sum(hashtext(e::text)::bigint) FROM app.entry e WHERE writer < 0"
            ).fetchone()

    def _wrong(self) -> list[str]:
        found = [f"writer {one.number}: {one.failed}" for one in self._writers if one.failed]
        if self._loaded("source") != self._loaded("target"):
            found.append("app.entry: what was there before the writers differs")
        with psycopg.connect(self._dsns["target"], autocommit=True) as conn:
            rows = conn.execute("SELECT writer, number FROM app.entry WHERE writer >= 0").fetchall()
            logged = conn.execute("SELECT writer, number FROM app.log").fetchall()
            totals = dict(conn.execute("SELECT writer, entries FROM app.total").fetchall())
        expected = Counter((one.number, n) for one in self._writers for n in one.acknowledged)
        for name, there in (("app.entry", Counter(rows)), ("app.log", Counter(logged))):
            lost, more = (expected - there).total(), (there - expected).total()
            if lost or more:
                found.append(f"{name}: {lost} lost, {more} doubled or never acknowledged")
        for one in self._writers:
            if totals.get(one.number) != len(one.acknowledged):
                found.append(f"app.total of writer {one.number} differs from what it committed")
        opened = min((ended for _, ended in self._probes["target"].open), default=None)
        if opened is None:
            found.append("the target was never open")
        elif late := [began for began, _ in self._probes["source"].open if began > opened]:
            found.append(f"both sides open: {len(late)} times")
        return found


class Running:
    """The process, as the benchmark sees it; a context manager, ended at the block's end."""

    def __init__(self, task: Task) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.applications"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # what is read as a line takes nothing of what comes behind it
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")

    def __enter__(self) -> Running:
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said == b"writing\n", f"the applications do not write: {said!r}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with suppress(BrokenPipeError):
            self._process.communicate(timeout=10)

    def work(self, seconds: float) -> None:
        """Let them write for so long; raises where they have ended."""
        with suppress(subprocess.TimeoutExpired):
            raise RuntimeError(f"the applications ended: {self._process.wait(seconds)}")

    def outcome(self, seconds: float = 60) -> Outcome:
        """Wait until all have come over; what they saw."""
        said, _ = self._process.communicate(timeout=seconds)
        told = json.loads(said)
        return Outcome(**told | {"crossings": [Crossing(**one) for one in told["crossings"]]})


def main() -> None:
    """See the module."""
    with Applications(Task(**json.loads(sys.stdin.readline()))) as all_of_them:
        until = time.monotonic() + _WARM_SECONDS
        while not all_of_them.writing() and time.monotonic() < until:
            time.sleep(0.05)
        print("writing", flush=True)
        while not all_of_them.over():
            time.sleep(0.05)
        time.sleep(_AFTERWARDS_SECONDS)
    print(json.dumps(asdict(all_of_them.outcome())), flush=True)


if __name__ == "__main__":
    main()
