"""What the demo saw, as a document for programs and as lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cdc_migrator.demo.digest import Comparison
    from cdc_migrator.demo.probe import Percentiles
    from cdc_migrator.demo.report import Account, Ended, Report, Returned, Switch


_STILL = {
    True: ", and has stood still since the way back was removed",
    False: ", but CHANGES ALTHOUGH the way back was removed",
    None: ", and follows the target on the way back",
}


def document(report: Report, seconds: float) -> dict[str, Any]:
    """All of it, for programs."""
    return {
        "equal": report.equal,
        "seconds": round(seconds, 1),
        "rows_loaded": report.rows_loaded,
        "events_applied": report.events_applied,
        "steps": report.steps,
        "kills": [asdict(kill) for kill in report.kills],
        "committed": report.committed,
        "missing_kinds": report.missing_kinds,
        "workload": report.workload.as_dict() if report.workload else None,
        "lag_seconds": {
            "calm": asdict(report.lag_calm) if report.lag_calm else None,
            "with_kills": asdict(report.lag_all) if report.lag_all else None,
        },
        "rss_bytes": report.rss_bytes,
        "switched": report.switched,
        "corruption": asdict(report.corruption) if report.corruption else None,
        "backup_seconds": report.backup_seconds,
        "ping_seconds": report.ping_seconds,
        "readiness": [asdict(verdict) for verdict in report.readiness],
        "rehearsal": _switched(report.rehearsal),
        "cutover": _switched(report.cutover),
        "returned": _returned(report.returned),
        "ended": _ended(report.ended),
        "followers": [one.as_dict() for one in report.followers],
        "tables": _tables(report.tables),
    }


def _tables(tables: Iterable[Comparison]) -> list[dict[str, Any]]:
    return [
        {
            "table": line.table,
            "source": asdict(line.source) if line.source else None,
            "target": asdict(line.target) if line.target else None,
            "equal": line.equal,
        }
        for line in tables
    ]


def _switched(switch: Switch | None) -> dict[str, Any] | None:
    return asdict(switch) | {"stalls_ms": switch.stalls()} if switch else None


def _returned(back: Returned | None) -> dict[str, Any] | None:
    if back is None:
        return None
    return asdict(back) | {
        "good": back.good,
        "switch": _switched(back.switch),
        "account": _account(back.account),
        "tables": _tables(back.tables),
    }


def _ended(ended: Ended | None) -> dict[str, Any] | None:
    if ended is None:
        return None
    return asdict(ended) | {
        "good": ended.good,
        "switch": _switched(ended.switch),
        "account": _account(ended.account),
    }


def _account(account: Account) -> dict[str, Any]:
    return asdict(account) | {"complete": account.complete}


def view(report: Report, seconds: float) -> RenderableType:
    """All of it, for people: every line says what happened, with a number."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    tables = Table("table", title="both sides, by plain SQL", title_justify="left")
    for heading in ("rows on source", "rows on target"):
        tables.add_column(heading, justify="right")
    for heading in ("digest of source", "digest of target", ""):
        tables.add_column(heading)
    for line in report.tables:
        sides = (line.source, line.target)
        tables.add_row(
            line.table,
            *(f"{side.rows:,}" if side else "missing" for side in sides),
            *(side.digest[:16] if side else "missing" for side in sides),
            Text("equal", "green") if line.equal else Text("DIFFERS", "bold red"),
        )
    facts = [
        f"{report.rows_loaded:,} rows loaded and {report.events_applied:,} changes applied "
        f"under live writes",
        *(
            f"{kill.what} killed {kill.amid}; caught up {kill.recovery_seconds:.1f} s later"
            for kill in report.kills
        ),
        f"lag from source commit to target commit: {_lag(report.lag_calm)}",
        f"  the kills included: {_lag(report.lag_all)}",
        f"peak memory of the applier: {report.rss_bytes / 2**20:.0f} MiB",
    ]
    lines = [Text(fact) for fact in (*facts, *_leaving(report))]
    if not report.equal:
        verdict = Text("NOT EQUAL", "bold red")
    elif not report.switched:
        verdict = Text("equal, but NOT SWITCHED as it should be", "bold red")
    else:
        verdict = Text(
            f"there, back and there again: everything acknowledged is there, in {seconds:.0f} s",
            "bold green",
        )
    return Group(tables, *lines, verdict)


def _leaving(report: Report) -> Iterator[str]:
    """What came after both sides were equal, line by line."""
    if bad := report.corruption:
        key = ", ".join(f"{name}={value}" for name, value in bad.key.items())
        found = "found by key and column" if bad.named else "NOT FOUND as it was"
        mended = "repaired" if bad.repaired else "NOT REPAIRED"
        yield f"corruption of {bad.table} {key} in {bad.column}: {found}, {mended}"
    if report.ping_seconds is not None:
        yield f"way back: prepared before, proven by a ping of {report.ping_seconds * 1000:.0f} ms"
    if report.rehearsal:
        yield f"rehearsal: {_stalls(report.rehearsal)}"
    if done := report.cutover:
        yield f"cutover: {_opened(done, 'target')}; {_stalls(done)}"
    if back := report.returned:
        yield (
            f"broken on the target: {back.failed} transactions failed; {back.rule} "
            f"{back.number:.1%} fired after {back.fired_after:.1f} s, and the shop was back on the "
            f"source after {back.open_after:.1f} s"
        )
        yield f"rollback, by itself: {_opened(back.switch, 'source')}; {_stalls(back.switch)}"
        equal = sum(table.equal for table in back.tables)
        yield f"  {_counted(back.account)}; {equal} of {len(back.tables)} tables equal by plain SQL"
        yield from _wrong(back.account)
    if ended := report.ended:
        yield f"cutover again: {_opened(ended.switch, 'target')}; {_stalls(ended.switch)}"
        yield f"  {_counted(ended.account)}"
        yield from _wrong(ended.account)
        fence = "refuses writers" if ended.source_refuses else "DOES NOT REFUSE WRITERS"
        yield f"  the source {fence}{_STILL[ended.source_unchanged]}"
        entries = " and ".join(f"{n} ({side})" for side, n in ended.journals.items())
        yield f"report: {ended.status}; journals as they were written, entries: {entries}"
        if ended.finished:
            left = "nothing" if not ended.left_behind else f"{ended.left_behind} things, WRONGLY,"
            yield f"finish: {ended.removed} things removed, {left} left behind"


def _opened(switch: Switch, side: str) -> str:
    took = f"{switch.open_ms:.0f} ms" if switch.open_ms is not None else "an unknown time"
    return f"{took} from fence to open {side}"


def _counted(account: Account) -> str:
    there = "all there, once" if account.complete else "NOT AS THEY SHOULD BE"
    return (
        f"acknowledged so far: {account.on_source:,} commits on the source and "
        f"{account.on_target:,} on the target, {there}"
    )


def _wrong(account: Account) -> Iterator[str]:
    for side, keys in (*account.lost.items(), *account.strange.items()):
        if keys:
            yield f"  WRONG on the {side}: {', '.join(keys)}"


def _stalls(switch: Switch) -> str:
    stalls = ", ".join(f"{ms:.0f}" for ms in switch.stalls())
    return f"writers waited {stalls or 'not at all'} ms, from commit to commit"


def _lag(lag: Percentiles | None) -> str:
    if lag is None:
        return "not seen"
    return (
        f"p50 {lag.p50 * 1000:.0f} ms, p99 {lag.p99 * 1000:.0f} ms, max {lag.max * 1000:.0f} ms "
        f"({lag.count:,} commits)"
    )
