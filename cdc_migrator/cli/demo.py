"""`demo`: see the whole thing on this machine, with proof."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_migrator.cli.output import Printer, console, printer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cdc_migrator.demo.probe import Percentiles
    from cdc_migrator.demo.report import Report, Switch


def demo(
    ctx: typer.Context,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave stack and migration up, to look around in.")
    ] = False,
    scale: Annotated[
        float,
        typer.Option(min=0.05, max=100, help="Size of the shop; 1 is about 400,000 rows."),
    ] = 1.0,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            metavar="DIR",
            show_default=".cdc-migrator/demo",
            help="Where it keeps configuration, logs and the stack's data.",
        ),
    ] = None,
) -> None:
    """Move a live shop from one PostgreSQL to another on this machine, and prove the result.

    Starts a real Kafka, Connect with Debezium, and two PostgreSQL servers; makes a shop with
    writers that never stop; moves it with the ordinary commands; kills the applier in the middle
    of a batch and then the Connect worker with SIGKILL, and lets them resume. Then both sides are
    digested by plain SQL, which shares no code with what moved the rows.

    It goes on to the cutover, under writers again: a value is changed on the target behind the
    migration's back, found by [bold]reconcile[/bold] and repaired; [bold]readiness[/bold], a
    rehearsal, and [bold]cutover[/bold]. The writers ask a routing row where to go, and count what
    was acknowledged and how long they had to wait. At the end that account is held against both
    databases.

    Needs no Docker, no root and no configuration, and takes about two minutes; the first time it
    also fetches 62 MB of jars. Everything is removed at the end, unless --keep is given.

    Exit code 0 only if every table is equal, the changed value was found and repaired, and
    everything acknowledged is there after the cutover.

    Example: [bold]cdc-migrator demo --keep[/bold]
    """
    from cdc_migrator.demo.scene import Scene
    from cdc_migrator.demo.story import Story
    from cdc_migrator.stack import local
    from cdc_migrator.stack.progress import OnStderr

    started = time.monotonic()
    out = printer(ctx)
    place = (directory or Path(".cdc-migrator/demo")).resolve()
    stack_dir = place / "stack"
    # What an earlier demo left would be taken for this one's work.
    local.down(stack_dir, purge=True)
    _clear(place)
    place.mkdir(parents=True, exist_ok=True)
    out.say("starting Kafka, Connect and two PostgreSQL servers")
    try:
        stack = local.up(local.StackOptions(stack_dir), OnStderr())
        with _display(out) as progress:
            report = Story(Scene(place, stack, out.say, progress), scale).play()
        seconds = time.monotonic() - started
        out.data(_document(report, seconds), lambda: _view(report, seconds))
    finally:
        if not keep:
            local.down(stack_dir, purge=True)
            shutil.rmtree(place / "backup", ignore_errors=True)
    if keep:
        out.say(f"left up: cd {place}; cdc-migrator status; cdc-migrator cutover status")
        out.next(f"cdc-migrator stack down --purge --state-dir {stack_dir}", "when done")
    else:
        out.next("cdc-migrator demo --keep", "leaves everything up to look around in")
        out.next("cdc-migrator init --source DSN --target DSN", "for your own database")
    if not (report.equal and report.switched):
        raise typer.Exit(1)


def _clear(place: Path) -> None:
    for name in ("migration.yaml", "migrate.log", "workload.log"):
        (place / name).unlink(missing_ok=True)
    shutil.rmtree(place / "backup", ignore_errors=True)


@contextmanager
def _display(out: Printer) -> Iterator[Any]:
    """A line that is always the present state on a terminal, else one now and then."""
    screen = console(stderr=True)
    if screen.is_terminal:
        with screen.status("") as line:
            yield line.update
        return
    last = [time.monotonic()]

    def say(text: str) -> None:
        if text and time.monotonic() - last[0] >= 5:
            last[0] = time.monotonic()
            out.say(f"  … {text}")

    yield say


def _document(report: Report, seconds: float) -> dict[str, Any]:
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
        "readiness": [asdict(verdict) for verdict in report.readiness],
        "rehearsal": _switched(report.rehearsal),
        "cutover": _switched(report.cutover),
        "account": (
            asdict(report.account) | {"complete": report.account.complete}
            if report.account
            else None
        ),
        "followers": report.followers.as_dict() if report.followers else None,
        "tables": [
            {
                "table": line.table,
                "source": asdict(line.source) if line.source else None,
                "target": asdict(line.target) if line.target else None,
                "equal": line.equal,
            }
            for line in report.tables
        ],
    }


def _switched(switch: Switch | None) -> dict[str, Any] | None:
    return asdict(switch) | {"stalls_ms": switch.stalls()} if switch else None


def _view(report: Report, seconds: float) -> RenderableType:
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
        verdict = Text("equal, but NOT SWITCHED OVER as it should be", "bold red")
    else:
        verdict = Text(
            f"equal before, and everything acknowledged is there after, in {seconds:.0f} s",
            "bold green",
        )
    return Group(tables, *lines, verdict)


def _leaving(report: Report) -> Iterator[str]:
    """The second part, line by line."""
    if bad := report.corruption:
        key = ", ".join(f"{name}={value}" for name, value in bad.key.items())
        found = "found by key and column" if bad.named else "NOT FOUND as it was"
        mended = "repaired" if bad.repaired else "NOT REPAIRED"
        yield f"corruption of {bad.table} {key} in {bad.column}: {found}, {mended}"
    if report.rehearsal:
        yield f"rehearsal: {_stalls(report.rehearsal)}"
    if done := report.cutover:
        opened = f"{done.open_ms:.0f} ms" if done.open_ms is not None else "an unknown time"
        yield f"cutover: {opened} from the source's fence to the target being open"
        yield f"  {_stalls(done)}"
    if account := report.account:
        yield (
            f"acknowledged to the writers: {account.on_source:,} commits on the source, then "
            f"{account.on_target:,} on the target"
        )
        for side, keys in (*account.lost.items(), *account.strange.items()):
            if keys:
                yield f"  WRONG on the {side}: {', '.join(keys)}"
        there = "all of them are there, once" if account.complete else "NOT AS THEY SHOULD BE"
        source = "as it was left" if account.source_unchanged else "WRITTEN TO after it was left"
        yield f"  {there}; the source is {source}"


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
