"""Evidence of a migration as it may be found: streaming, switched over, rolled back, silent."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cdc_migrator.control import chain
from cdc_migrator.control.backups import Backup, Kind
from cdc_migrator.control.chain import Entry
from cdc_migrator.control.cutover import Attempt
from cdc_migrator.control.migration import Migration, Phase
from cdc_migrator.control.proofs import TableProof
from cdc_migrator.control.reconcile import Run, RunState
from cdc_migrator.model.gates import fails, passes
from cdc_migrator.model.tables import TableName
from cdc_migrator.monitor.sample import (
    ConnectorSample,
    LoadSample,
    Sample,
    SlotSample,
    StreamSample,
)
from cdc_migrator.monitor.table_sample import TableSample
from cdc_migrator.service.evidence import Back, Counted, Evidence, Said, Side
from cdc_migrator.service.journal import Journal

BEGAN = datetime(2026, 3, 1, 22, 0, tzinfo=UTC)
NOW = BEGAN + timedelta(hours=10)
ORDERS, LINES = TableName("shop", "orders"), TableName("shop", "order_lines")


def at(minutes: float) -> datetime:
    return BEGAN + timedelta(minutes=minutes)


def attempt(number: int, state: str, begun: float, **changes: Any) -> Attempt:
    """One attempt that has ended; `opened=True` where it opened the other side."""
    opened, rehearsal = changes.pop("opened", False), changes.pop("rehearsal", False)
    one = Attempt(
        attempt=number,
        leg=1,
        rehearsal=rehearsal,
        state=state,
        marker=f"m{number}",
        options={},
        details={
            "seconds": {
                "checking": 1.2, "preparing": 2.5, "fencing": 0.011, "draining": 0.04,
                "verifying": 0.021, "sequences": 0.001, "opening": 0.006,
            },
            "verified": True,
            **({"stall_ms": 84.3} if opened else {}),
        },
        error=None,
        actor="ann@ops:71",
        started_at=at(begun),
        fenced_at=at(begun + 0.1),
        opened_at=at(begun + 0.1) + timedelta(milliseconds=84) if opened else None,
        ended_at=at(begun + 0.2),
    )  # fmt: skip
    return replace(one, **changes)


REHEARSED = attempt(1, "rehearsed", 300, rehearsal=True)
SWITCHED = attempt(2, "done", 400, opened=True)
WENT_BACK = attempt(1, "done", 500, opened=True)
UNDONE = attempt(
    3,
    "undone",
    420,
    error={"code": "CDCM-CUTOVER-LAG", "cause": "the target is behind", "remedy": "Wait."},
)


def entries(*told: tuple[float, str, dict[str, Any]]) -> tuple[Entry, ...]:
    """A right journal."""
    found: list[Entry] = []
    for number, (minutes, action, details) in enumerate(told, 1):
        previous = found[-1].hash if found else chain.FIRST
        content = (previous, number, at(minutes), "ann@ops:71", action, details)
        found.append(Entry(number, *content[2:], previous, chain.digest(*content)))
    return tuple(found)


FORWARD = Journal(
    "target",
    "shop",
    NOW,
    entries(
        (0, "migration-created", {"name": "shop"}),
        (0.1, "phase", {"phase": "schema"}),
        (0.2, "phase", {"phase": "capture"}),
        (0.3, "slot-create", {"slot": "cdcm_shop_1"}),
        (0.4, "phase", {"phase": "load"}),
        (40, "phase", {"phase": "indexes"}),
        (55, "phase", {"phase": "stream"}),
        (100, "run-failed", {"last_error": {"code": "CDCM-X", "cause": "the target was away"}}),
        (200, "reconcile-ended", {"run": 1, "state": "equal"}),
        (300, "cutover-begun", {"attempt": 1, "rehearsal": True}),
        (300.2, "cutover-state", {"attempt": 1, "state": "rehearsed"}),
        (400, "cutover-begun", {"attempt": 2, "rehearsal": False}),
        (400.1, "sequences-sync", {"margin": 1000, "sequences": [
            {"sequence": "shop.orders_id_seq", "parameters": [], "last_value": 91234,
             "is_called": True}]}),
        (400.2, "cutover-state", {"attempt": 2, "state": "done"}),
    ),
)  # fmt: skip
BACKWARD = Journal(
    "source", "shop_back", NOW, entries((500, "cutover-begun", {"attempt": 1, "rehearsal": False}))
)


def table(name: TableName, rows: int) -> TableSample:
    return TableSample(str(name), str(name), "loaded", rows, rows, rows * 90, 1200, 800, 15, 0)


SAMPLE = Sample(
    at=NOW,
    migration="shop",
    generation=1,
    phase=Phase.STREAM,
    tables=(table(ORDERS, 91_000), table(LINES, 455_120)),
    load=LoadSample(1.0, 2380.0),
    stream=StreamSample("t", 10, 99, NOW, NOW, 4040, 2, 0),
    connector=ConnectorSample("cdcm-shop-1", True, "RUNNING", ("RUNNING",)),
    slot=SlotSample("cdcm_shop_1", True, True, "reserved", 5 << 20),
    lag_seconds=0.21,
)
STREAMING = Evidence(
    at=NOW,
    name="shop",
    said=Said(hooks=("route",), decide=("Ann, +49 30 1234",), tell=("#ops",)),
    source=Side("source", "db1:5432/shop", "15.9", 2 << 30, "source"),
    target=Side("target", "db2:5432/shop", "18.1", 2 << 30, "source"),
    sample=SAMPLE,
    gates=(passes("load", "all is loaded"), fails("backup", "there is none", "Make one.")),
    migration=Migration(
        "shop", 1, Phase.STREAM, "1", 1, "0/1", None, None, None, "x", False, None, BEGAN, NOW
    ),
    tables=((ORDERS, ORDERS), (LINES, LINES)),
    attempts=(REHEARSED,),
    back=Back(False),
    journals=(FORWARD,),
    proofs=(
        TableProof(
            ORDERS, 91_020, True, 4, 4, 1, "00ab54fe12cd99110000000048213377", at(200), at(399)
        ),
        TableProof(LINES, 455_900, True, 12, 12, 0, None, at(200), at(200)),
    ),
    differences=(Counted(LINES, "repaired", 2, at(210)),),
    repairs=(Counted(LINES, "replaced", 2, at(210)),),
    runs=(Run(1, "full", (ORDERS, LINES), RunState.EQUAL, "ann@ops:71", at(199), at(200)),),
    backups=(
        Backup(1, Kind.DUMP, "/srv/b1", at(290), 1 << 30, {}, at(295), "ann@ops:71", at(290)),
    ),
)
COMPLETED = replace(
    STREAMING,
    sample=replace(
        SAMPLE, phase=Phase.SWITCHED, stream=replace(SAMPLE.stream, ignored_since_left=0)
    ),
    attempts=(REHEARSED, SWITCHED),
    back=Back(True),
    journals=(FORWARD, BACKWARD),
)
ROLLED_BACK = replace(COMPLETED, back=Back(True, (WENT_BACK,)), sample=SAMPLE)
SILENT = Evidence(
    at=NOW,
    name="shop",
    said=Said(),
    source=Side("source", "db1:5432/shop", silent="the source at db1 does not answer"),
    target=Side("target", "db2:5432/shop", silent="the target at db2 does not answer"),
    sample=Sample(NOW, "shop"),
    unread=("target", "source"),
)
EVERY = {
    "streaming": STREAMING,
    "completed": COMPLETED,
    "rolled-back": ROLLED_BACK,
    "silent": SILENT,
}
