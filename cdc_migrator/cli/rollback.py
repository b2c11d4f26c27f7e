"""`rollback`: go back to the source with all that was written on the target since."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from cdc_migrator.cli.abort import confirm
from cdc_migrator.cli.context import settings
from cdc_migrator.cli.cutover import Budget, DryRun, Terminate, Yes
from cdc_migrator.cli.output import printer
from cdc_migrator.cli.switching import carry_out, give_up, show_status, switch_options
from cdc_migrator.errors import ConfigurationError

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    invoke_without_command=True,
)


@app.callback()
def rollback(
    ctx: typer.Context,
    rehearse: Annotated[
        bool,
        typer.Option("--rehearse", help="Everything short of opening the source; then undo it."),
    ] = False,
    dry_run: DryRun = False,
    budget: Budget = None,
    terminate: Terminate = False,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="The target is lost: go back with what came over, and give up what did not.",
        ),
    ] = False,
    patience: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="SECONDS",
            help="With --accept-loss: for what Kafka still holds to be applied.",
        ),
    ] = 60.0,
    yes: Yes = False,
) -> None:
    """Go back to the source, at any time until [bold]finish[/bold]; no write is lost.

    It is the cutover the other way round: the target is fenced, what was written there is applied
    to the source and compared, the source's sequences are set past the target's, and one commit
    opens the source. The hooks of migration.yaml send the applications back. Whatever fails before
    that commit is undone, and the target is open as before. Killed at any moment, the same command
    goes on, or undoes it.

    It needs the way back that [bold]way-back prepare[/bold] made before the cutover, and
    [bold]run[/bold], which applies it. Afterwards the migration goes on as before the cutover:
    the changes of the source come to the target, and [bold]cutover[/bold] can be typed again,
    forward and back any number of times.

    With a target that is lost for good, [bold]--accept-loss[/bold] applies what Kafka still holds,
    says up to which moment the source has all that was written there, and opens the source. Make
    sure that nobody writes on the target again should it come back: its fence is not up.

    Exit code 0 when the source is open and the hooks are through; 1 when it was undone, or a hook
    failed after the source was opened: type it again; 3 when something stands against it.

    Example: [bold]cdc-migrator rollback --yes[/bold]
    """
    if ctx.invoked_subcommand is not None:
        return
    if accept_loss:
        if rehearse or dry_run:
            raise ConfigurationError(
                "CDCM-CUTOVER-OPTIONS",
                "--accept-loss cannot be rehearsed: without the target nothing can be undone",
                "`cdc-migrator way-back status` shows how far the target's changes have come.",
            )
        _without_target(ctx, patience, yes)
        return
    carry_out(ctx, rehearse, dry_run, budget, terminate, yes, back=True)


def _without_target(ctx: typer.Context, patience: float, yes: bool) -> None:
    from cdc_migrator.cli.endpoints import endpoints
    from cdc_migrator.model.positions import lsn_to_text
    from cdc_migrator.service.forsaking import forsake

    configured = settings(ctx)
    out = printer(ctx)
    if not yes:
        confirm(configured.name, "give up what has not come over from the target")
    brokers = endpoints(configured).brokers
    with ExitStack() as stack:
        options = switch_options(stack, configured, False, None, False, back=True)
        done = forsake(options, brokers, patience, lambda text: out.say(f"  {text}"))
    loss = done.loss
    if not out.for_people:
        out.data(
            {
                "attempt": done.attempt,
                "state": "switching" if done.hook_error else "done",
                "loss": {**loss.as_dict(), "position": lsn_to_text(loss.position)},
                "error": done.hook_error,
            }
        )
    if loss.until is None:
        out.say("nothing that was written on the target had come over", "yellow")
    else:
        until = f"{loss.until:%Y-%m-%d %H:%M:%S.%f} by its clock ({lsn_to_text(loss.position)})"
        out.say(
            f"the source has all that was committed on the target up to {until}; what came later "
            "is lost",
            "yellow",
        )
    if done.hook_error is not None:
        out.say(f"error {done.hook_error['code']}: {done.hook_error['cause']}", "red")
        out.say("remedy: type the same command again, or send the applications there by hand")
        raise typer.Exit(1)
    out.say("done: the source is open", "green")


@app.command()
def status(ctx: typer.Context) -> None:
    """What the last rollback did, and what typing it again will do.

    Exit code 0 whatever it says; 1 where the source does not answer.

    Example: [bold]cdc-migrator rollback status -o json[/bold]
    """
    show_status(ctx, back=True)


@app.command()
def abort(
    ctx: typer.Context,
    target_only: Annotated[
        bool,
        typer.Option(
            "--target-only", help="Lift the target's fence without the source, which is lost."
        ),
    ] = False,
    source_is_gone: Annotated[
        bool,
        typer.Option(
            "--source-is-gone",
            help="With --target-only: also where the source may have been opened. What was "
            "written there is given up.",
        ),
    ] = False,
    yes: Yes = False,
) -> None:
    """Stop the rollback that is under way and undo it: the target is open again.

    As [bold]cutover abort[/bold], with both sides changed over.

    Exit code 0 when the target is open; 1 when it is not yet, type it again; 3 when the source is
    open, or may be.

    Example: [bold]cdc-migrator rollback abort[/bold]
    """
    give_up(ctx, target_only, source_is_gone, yes, back=True)
