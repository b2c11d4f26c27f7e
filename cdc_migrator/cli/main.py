"""The entry point: which verb lives where, the options they share, and how a failure ends.

A verb's module is imported when the verb runs, so that `--help` is quick and one verb's
libraries cost the others nothing. Exit codes: 0 ok, 1 failed or differs, 2 usage or
configuration, 3 refused, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from cdc_migrator.cli.context import Session
from cdc_migrator.cli.options import shared_options
from cdc_migrator.errors import MigratorError
from cdc_migrator.model.traces import chain


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: its module and object (a function or a typer app of several), and a help line."""

    name: str
    place: str
    panel: str
    summary: str


START, MIGRATE, SWITCH, OBSERVE, ABANDON, STACK, CONFIGURE = (
    "Start here",
    "Migrate",
    "Switch over",
    "Observe",
    "Abandon",
    "Local stack",
    "Configuration",
)

VERBS = (
    Verb("demo", "demo:demo", START, "See a live shop database move on this machine, with proof."),
    Verb("init", "init:init", START, "Look at a source and write a commented migration.yaml."),
    Verb("check", "check:check", START, "Check that both databases are ready for a migration."),
    Verb("connectors", "connectors:app", START, "Look for what a connector's settings lose."),
    Verb("migrate", "migrate:migrate", MIGRATE, "Schema, capture, load and run, in one command."),
    Verb("schema", "schema:app", MIGRATE, "Bring the target's schema in line with the source's."),
    Verb("transform", "transform:app", MIGRATE, "Show and check tables that change their shape."),
    Verb("capture", "capture:app", MIGRATE, "Start, show or stop the capture of changes."),
    Verb("backfill", "backfill:backfill", MIGRATE, "Copy what is already there."),
    Verb("sequences", "sequences:app", MIGRATE, "Set the target's sequences past the source's."),
    Verb("reconcile", "reconcile:app", MIGRATE, "Compare both sides' rows, and repair them."),
    Verb("validate", "validate:app", MIGRATE, "Check rules that both sides' rows must keep."),
    Verb("repair", "repair:repair", MIGRATE, "Write whole tables anew while the stream runs."),
    Verb("dead-letters", "dead_letters:app", MIGRATE, "Settle records that were kept back."),
    Verb("backup", "backup:app", MIGRATE, "Make and verify a backup of the source, or note one."),
    Verb("run", "run:run", MIGRATE, "Apply the stream of changes to the target; runs on."),
    Verb("way-back", "way_back:app", SWITCH, "Have the way back to the source ready, and proven."),
    Verb("cutover", "cutover:app", SWITCH, "Leave the source for the target; rehearse it first."),
    Verb("rollback", "rollback:app", SWITCH, "Go back to the source; no write is lost."),
    Verb("finish", "finish:finish", SWITCH, "After the cutover: remove what the migration made."),
    Verb("status", "status:status", OBSERVE, "Show phase, progress, lag and what is wrong."),
    Verb("readiness", "readiness:readiness", OBSERVE, "Is it safe to leave the source, and why."),
    Verb("report", "report:report", OBSERVE, "Write the report on the migration: HTML and JSON."),
    Verb("journal", "journal:app", OBSERVE, "Show, export and verify what was decided and done."),
    Verb("plan", "plan:app", OBSERVE, "Write the documents that a team reads beforehand."),
    Verb("baseline", "baseline:app", OBSERVE, "Record and compare how fast either side is."),
    Verb("watch", "watch:app", OBSERVE, "The rules that watch the target once it is open."),
    Verb("diagnose", "diagnose:diagnose", OBSERVE, "Write a bundle for whoever is to help."),
    Verb("abort", "abort:abort", ABANDON, "Give up: remove slot, connector, topics and schemas."),
    Verb("stack", "stack:app", STACK, "Run Kafka, Connect and two PostgreSQL on this machine."),
    Verb("config", "config:app", CONFIGURE, "Show, check or describe the configuration."),
)


def load_verb(verb: Verb) -> TyperCommand | TyperGroup:
    """Import the verb and make its command, which also takes the shared options."""
    module, _, name = verb.place.partition(":")
    found = getattr(importlib.import_module(f"cdc_migrator.cli.{module}"), name)
    command: Any
    if isinstance(found, typer.Typer):
        command = get_group(found)
    else:
        single = typer.Typer(add_completion=False, rich_markup_mode="rich")
        single.command(verb.name)(found)
        command = get_command(single)
    command.name, command.short_help = verb.name, verb.summary
    _complete(command, shared_options())
    return command  # type: ignore[no-any-return]


def _complete(command: Any, shared: Sequence[Any]) -> None:
    """Give a command and those below it the shared options, and let its help text flow."""
    taken = {option for parameter in command.params for option in parameter.opts}
    command.params.extend(p for p in shared if not taken & set(p.opts))
    paragraphs = (command.help or "").split("\n\n")
    command.help = "\n\n".join(re.sub(r"\n(?! )", " ", text) for text in paragraphs)
    _flags_stand_alone(command)
    for inner in getattr(command, "commands", {}).values():
        _complete(inner, shared)


def _flags_stand_alone(command: Any) -> None:
    """Show flags without their type: "<bool>" would look as if a value were wanted."""
    for parameter in command.get_params(typer.Context(command)):
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""


class Verbs(TyperGroup):
    """The root command: lists the registry, imports only the verb that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {
            verb.name: TyperCommand(
                verb.name, help=verb.summary, rich_help_panel=verb.panel, rich_markup_mode="rich"
            )
            for verb in VERBS
        }
        _complete(self, shared_options())

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        for verb in VERBS:
            if args and args[0] == verb.name:
                return verb.name, load_verb(verb), args[1:]
        return super().resolve_command(ctx, args)


def _say_version(value: bool) -> None:
    if value:
        from cdc_migrator import __version__

        typer.echo(f"cdc-migrator {__version__}")
        raise typer.Exit


app = typer.Typer(cls=Verbs, no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Move a live PostgreSQL database to another one without stopping the application.

    Every change is captured by Debezium, travels through Kafka and is applied to the target
    exactly once and in commit order. Every command can be killed and typed again.

    See it work on this machine: [bold]cdc-migrator demo[/bold]

    For your own database: [bold]init[/bold] writes migration.yaml, [bold]check[/bold] looks for
    what stands against it, [bold]migrate[/bold] does the work, [bold]status[/bold] shows how far
    it is, [bold]abort[/bold] gives it up and leaves nothing behind.

    Exit codes: 0 ok, 1 it did not work and may when typed again, 2 usage or configuration, 3
    refused until the remedy is done, 130 interrupted. A failure names its code and its remedy.
    """


def main(args: Sequence[str] | None = None) -> None:
    """The console script: run the command line and end the process with its exit code."""
    current = Session()
    if os.getpid() == 1:
        _end_on_sigterm()
    try:
        command = get_command(app)
        _flags_stand_alone(command)
        command.main(args=args, prog_name="cdc-migrator", obj=current)
    except KeyboardInterrupt:
        sys.exit(130)
    except MigratorError as error:
        _finish(error, current)
    except Exception as error:
        _finish(_unexpected(error), current)


def _end_on_sigterm() -> None:
    """Let SIGTERM end the first process of a container as it ends any other.

    The kernel delivers to it only signals that it has a handler for: without one a verb would
    run on until it is killed, when the container is told to stop. `run` sets its own.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _finish(error: MigratorError, current: Session) -> None:
    from cdc_migrator.cli.output import report_error

    if current.verbose:
        sys.stderr.write(chain(sys.exc_info()[1] or error))
    report_error(error, current)
    sys.exit(error.exit_code)


def _unexpected(error: Exception) -> MigratorError:
    # The error's own text may hold a row's value or a password: name its type and place only.
    place = "unknown place"
    for frame in traceback.extract_tb(error.__traceback__):
        if "cdc_migrator" in frame.filename:
            place = f"{Path(frame.filename).name}:{frame.lineno}"
    return MigratorError(
        "CDCM-INTERNAL",
        f"an unexpected {type(error).__name__} in {place}",
        "Nothing is lost: every command can be repeated. With -v it shows where it came from; "
        "please report that, after a look for values you do not want to share.",
    )


if __name__ == "__main__":
    main()
