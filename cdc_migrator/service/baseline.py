"""Record what a side does in ordinary times, and compare both sides' latest records."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from cdc_migrator.control import migration, schema, watch
from cdc_migrator.control.watch import Baseline, Side
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Failed, Refused
from cdc_migrator.model.logins import Role, login
from cdc_migrator.monitor import baseline, traffic
from cdc_migrator.monitor.baseline import Compared
from cdc_migrator.monitor.traffic import Counters, Traffic

_LIMITS = {"statement_timeout": "10s", "lock_timeout": "2s"}
# Sessions hand in what they have counted about once a second.
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class BaselineOptions:
    """Which migration, and its databases' complete connection strings."""

    migration: str
    source_dsn: str
    target_dsn: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both sides' latest baselines, number by number."""

    source: Baseline
    target: Baseline
    numbers: tuple[Compared, ...]

    @property
    def within(self) -> bool:
        """Whether every number could be compared, and the target is as good as the source."""
        return all(one.within is True for one in self.numbers)


def record(
    options: BaselineOptions,
    side: Side,
    window: float,
    observe: Callable[[float], None] = lambda _: None,
) -> Baseline:
    """Look at a side for `window` seconds, and keep what was found on the target.

    Args:
        observe: told the seconds that are left, now and then.

    Raises:
        Failed: CDCM-BASELINE-COUNTERS.
        MigratorError: a side does not answer; CDCM-MIGRATION-MISSING, CDCM-TARGET-TAKEN.
    """
    called = f"cdcm-{options.migration}-baseline"
    dsn = options.source_dsn if side == "source" else options.target_dsn
    with _kept(options) as target:
        _ready(target, options.migration)
    with (
        connect(
            login(dsn, Role.MONITOR),
            application_name=called,
            side=side,
            read_only=True,
            settings=_LIMITS,
        ) as conn,
        speaking(side, "reading its counters"),
    ):
        looks = _look(conn, window, observe)
    if (
        not looks
        or {one.kind for one in looks} != {looks[0].kind}
        or not any(one.commits + one.rollbacks for one in looks)
    ):
        raise _useless(side)
    with _kept(options) as target, speaking("target", "keeping the baseline"):
        return watch.keep_baseline(
            target,
            side,
            looks[0].kind,
            baseline.numbers(looks),
            sum(one.seconds for one in looks),
        )


def _look(
    conn: psycopg.Connection, window: float, observe: Callable[[float], None]
) -> list[Traffic]:
    """One after the other; none where the counters were set back."""
    began = time.monotonic()
    looks: list[Traffic] = []
    before = _read(conn)
    while True:
        left = window - (time.monotonic() - began)
        if looks and left <= 0:
            return looks
        observe(max(left, 0.0))
        time.sleep(min(_LOOK_SECONDS, max(left, 0.1)))
        after = _read(conn)
        between = traffic.between(before, after)
        if between is None:
            return []
        looks.append(between)
        before = after


def _read(conn: psycopg.Connection) -> Counters:
    # In one transaction: ours are counted, too.
    with conn.transaction():
        return traffic.read(conn)


def compare(options: BaselineOptions, tolerance: float) -> Comparison:
    """Compare the latest baselines of both sides.

    Raises:
        Refused: CDCM-BASELINE-MISSING.
        MigratorError: the target does not answer; CDCM-MIGRATION-MISSING, CDCM-TARGET-TAKEN.
    """
    with _kept(options) as target, speaking("target", "reading the baselines"):
        _ready(target, options.migration)
        source, other = (_latest(target, side) for side in ("source", "target"))
    found = baseline.compare((source.kind, source.numbers), (other.kind, other.numbers), tolerance)
    return Comparison(source, other, tuple(found))


def recorded(options: BaselineOptions) -> list[Baseline]:
    """What was recorded, the newest first. Raises MigratorError as `compare`."""
    with _kept(options) as target, speaking("target", "reading the baselines"):
        _ready(target, options.migration)
        return watch.baselines(target)


def _kept(options: BaselineOptions) -> psycopg.Connection:
    return connect(
        options.target_dsn,
        application_name=f"cdcm-{options.migration}-baseline",
        side="target",
        settings=_LIMITS,
    )


def _ready(target: psycopg.Connection, name: str) -> None:
    with speaking("target", "reading the migration"):
        migration.require(target, name)
        schema.ensure(target, "target")


def _latest(target: psycopg.Connection, side: Side) -> Baseline:
    found = watch.latest_baseline(target, side)
    if found is None:
        raise Refused(
            "CDCM-BASELINE-MISSING",
            f"no baseline of the {side} was recorded yet",
            f"`cdc-migrator baseline record --side {side}` while applications are there.",
        )
    return found


def _useless(side: str) -> Failed:
    return Failed(
        "CDCM-BASELINE-COUNTERS",
        f"the counters of the {side} were set back meanwhile, or nothing was counted",
        "Record it again; a window of some seconds is the least.",
    )
