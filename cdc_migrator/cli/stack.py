"""`stack up | status | down | logs`: a real Kafka, Connect and two PostgreSQL on this machine."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_migrator.cli.output import printer

if TYPE_CHECKING:
    from cdc_migrator.config.settings import Settings
    from cdc_migrator.stack.local import ChildStatus, StackInfo, StackStatus

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""Run Kafka, Connect with Debezium, and two PostgreSQL servers on this machine.

    Everything is real: a KRaft broker, a Connect worker with exactly-once source, and two
    PostgreSQL servers, [bold]source[/bold] with logical WAL and [bold]target[/bold]. No Docker
    and no root is needed. All of it listens on loopback only, and keeps its data in one
    directory until [bold]cdc-migrator stack down --purge[/bold].

    A migration.yaml that names neither kafka nor connect uses the stack of its own directory.

    Example: [bold]cdc-migrator stack up[/bold]
    """,
)

# Where migrations keep their local state; the stack's directory is inside it.
BASE_VARIABLE = "CDC_MIGRATOR_STATE_DIR"

StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        envvar="CDC_MIGRATOR_STACK__STATE_DIR",
        show_default=".cdc-migrator/stack",
        help="Where the stack keeps everything: data, settings, passwords, logs.",
    ),
]


class LogName(StrEnum):
    """The stack's processes that have a log."""

    SOURCE = "source"
    TARGET = "target"
    KAFKA = "kafka"
    CONNECT = "connect"
    SUPERVISOR = "supervisor"


@app.command()
def up(
    ctx: typer.Context,
    state_dir: StateDir = None,
    postgres_bin: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Run the PostgreSQL (15 or newer) of this directory, which holds `postgres` and "
            "`initdb`, instead of the one that comes with cdc-migrator.",
        ),
    ] = None,
    full_jit: Annotated[
        bool,
        typer.Option(
            "--full-jit", help="Let Java optimise fully: a slower start, twice the throughput."
        ),
    ] = False,
    jar_repository: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="CDC_MIGRATOR_STACK__JAR_REPOSITORY",
            help="Fetch jars from this mirror of the central Java repository, or from a directory.",
        ),
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            envvar="CDC_MIGRATOR_STACK__CACHE_DIR",
            show_default="the user's cache directory",
            help="Keep fetched jars here.",
        ),
    ] = None,
    timeout: Annotated[
        int,
        typer.Option(min=1, metavar="SECONDS", help="How long to wait until everything serves."),
    ] = 180,
) -> None:
    """Start the stack, or find the one that runs; returns when every part serves.

    The first start fetches 62 MB of jars into the user's cache; every jar is checked against
    the checksums that cdc-migrator carries, at every start. A process that dies later is
    restarted. A second [bold]up[/bold] changes nothing; after [bold]down[/bold], the data, the
    ports and the passwords are the old ones.

    The addresses are shown without passwords; for programs they are printed with them:

    Example: [bold]cdc-migrator stack up -o json[/bold]
    """
    from cdc_migrator.stack import local
    from cdc_migrator.stack.progress import OnStderr

    configured = _configured(ctx)
    options = local.StackOptions(
        state_dir=_state_dir(ctx, state_dir),
        postgres_bin=postgres_bin.resolve() if postgres_bin else None,
        full_jit=full_jit,
        jar_repository=jar_repository or (configured.stack.jar_repository if configured else None),
        cache_dir=cache_dir or (configured.stack.cache_dir if configured else None),
        timeout=timeout,
    )
    info = local.up(options, OnStderr())
    out = printer(ctx)
    out.data(_info_document(info), lambda: _info_table(info))
    out.next("cdc-migrator stack up -o json", "the same with passwords, for programs")


@app.command()
def status(ctx: typer.Context, state_dir: StateDir = None) -> None:
    """Show each process: state, port, uptime, memory, restarts, and what its log said as it died.

    Exit code 0 when all of them run, else 1.

    Example: [bold]cdc-migrator stack status -o json[/bold]
    """
    from cdc_migrator.stack import local

    found = local.status(_state_dir(ctx, state_dir))
    out = printer(ctx)
    out.data(_status_document(found), lambda: _status_table(found))
    if out.for_people:
        sys.stdout.write(_status_text(found))
    if not found.healthy:
        raise typer.Exit(1)


@app.command()
def down(
    ctx: typer.Context,
    state_dir: StateDir = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove the data, the logs and the directory as well.")
    ] = False,
) -> None:
    """Stop the stack in good order.

    Its data stays for the next `up`, unless it is purged.

    Example: [bold]cdc-migrator stack down --purge[/bold]
    """
    from cdc_migrator.stack import local
    from cdc_migrator.stack.progress import OnStderr

    place = _state_dir(ctx, state_dir)
    existed = local.down(place, purge=purge, talk=OnStderr())
    out = printer(ctx)
    if not existed:
        out.say(f"there is no stack in {place}")
    elif purge:
        out.say(f"stopped; {place} is removed")
    else:
        out.say(f"stopped; its data stays in {place}")


@app.command()
def logs(
    ctx: typer.Context,
    name: Annotated[LogName, typer.Argument(help="Which process.")],
    state_dir: StateDir = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new lines as they come.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")
    ] = 100,
) -> None:
    """Print the log of one process: source, target, kafka, connect or supervisor.

    The place to look when a connector fails (connect) or a server does not start.

    Example: [bold]cdc-migrator stack logs connect --follow[/bold]
    """
    from cdc_migrator.stack import local
    from cdc_migrator.stack import logs as log_files

    path = local.log_file(_state_dir(ctx, state_dir), name.value)
    shown = log_files.follow(path, lines) if follow else log_files.tail(path, lines)
    for line in shown:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _configured(ctx: typer.Context) -> Settings | None:
    """The settings where there is a migration.yaml; a stack needs none."""
    from cdc_migrator.cli.context import session, settings
    from cdc_migrator.config import loader

    return settings(ctx) if loader.find(session(ctx).config) else None


def _state_dir(ctx: typer.Context, given: Path | None) -> Path:
    """The flag or its variable, then the configuration file, then the working directory's own."""
    from cdc_migrator.stack import local

    if given is not None:
        return given
    configured = _configured(ctx)
    if configured is None:
        return local.default_state_dir(Path(os.environ.get(BASE_VARIABLE) or ".cdc-migrator"))
    return configured.stack.state_dir or local.default_state_dir(configured.state_dir)


def _info_document(info: StackInfo) -> dict[str, Any]:
    return {
        "source": {"dsn": info.source_dsn},
        "target": {"dsn": info.target_dsn},
        "kafka": {"bootstrap_servers": info.bootstrap_servers},
        "connect": {"url": info.connect_url},
        "state_dir": str(info.state_dir),
        "secrets_dir": str(info.secrets_dir),
    }


def _info_table(info: StackInfo) -> Any:
    table = _table("", "address")
    table.add_row("source", _masked(info.source_dsn))
    table.add_row("target", _masked(info.target_dsn))
    table.add_row("kafka", info.bootstrap_servers)
    table.add_row("connect", info.connect_url)
    table.add_row("state", str(info.state_dir))
    return table


def _masked(dsn: str) -> str:
    """The DSN with its password hidden."""
    from urllib.parse import urlsplit

    parts = urlsplit(dsn)
    place = f"{parts.username}:***@{parts.hostname}:{parts.port}"
    return parts._replace(netloc=place).geturl()


def _status_document(found: StackStatus) -> dict[str, Any]:
    running = found.running
    return {
        "healthy": found.healthy,
        "state_dir": str(found.state_dir),
        "supervisor": {"pid": found.supervisor_pid},
        "postgres_version": running.postgres_version if running else None,
        "java_version": running.java_version if running else None,
        "full_jit": running.full_jit if running else None,
        "children": {child.name: _child_document(child) for child in found.children},
    }


def _child_document(child: ChildStatus) -> dict[str, Any]:
    death = child.last_death
    return {
        "state": child.state,
        "reason": child.reason,
        "pid": child.pid,
        "port": child.port,
        "uptime_seconds": None if child.uptime is None else round(child.uptime, 1),
        "memory_bytes": child.memory,
        "restarts": child.restarts,
        "last_death": death
        and {
            "at": _moment(death.at),
            "lived_seconds": death.lived,
            "cause": death.cause,
            "log_tail": list(death.log_tail),
        },
        "log": str(child.log),
    }


def _status_table(found: StackStatus) -> Any:
    from rich.text import Text

    table = _table("process", "state", "pid", "port", "uptime", "memory", "restarts")
    for child in found.children:
        table.add_row(
            child.name,
            Text(child.state, style="green" if child.state == "running" else "red"),
            _shown(child.pid),
            str(child.port),
            "-" if child.uptime is None else f"{child.uptime:.0f} s",
            "-" if child.memory is None else f"{child.memory / 1e6:.0f} MB",
            str(child.restarts),
        )
    return table


def _status_text(found: StackStatus) -> str:
    """What stands below the table: the supervisor, and each child's last words, as they stand in
    its log (a table would fold the lines)."""
    lines = [
        f"supervisor: pid {found.supervisor_pid}"
        if found.supervisor_pid
        else "supervisor: not running (`cdc-migrator stack up` starts everything again)"
    ]
    for child in found.children:
        if death := child.last_death:
            told = f"{child.name} {death.cause} at {_moment(death.at)}"
            lines += ["", told + (f"; {child.reason}" if child.reason else "")]
            lines += ["the end of its log then:", *(f"  {line}" for line in death.log_tail[-10:])]
    return "\n".join(lines) + "\n"


def _table(*headings: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _shown(value: object | None) -> str:
    return "-" if value is None else str(value)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
