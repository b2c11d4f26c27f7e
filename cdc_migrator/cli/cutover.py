"""`cutover`: leave the source for the target, rehearse it, look at it, undo it."""

from __future__ import annotations

from typing import Annotated

import typer

from cdc_migrator.cli.switching import carry_out, give_up, show_status

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    invoke_without_command=True,
)

# Of a switch in either direction.
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for the migration's name.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Change nothing; print the steps and the stall.")
]
Budget = Annotated[
    float | None,
    typer.Option(
        min=0.05, metavar="SECONDS", help="Instead of cutover.budget: how long writers wait."
    ),
]
Terminate = Annotated[
    bool, typer.Option("--terminate", help="End sessions that stay in the fence's way.")
]


@app.callback()
def cutover(
    ctx: typer.Context,
    rehearse: Annotated[
        bool,
        typer.Option("--rehearse", help="Everything short of opening the target; then undo it."),
    ] = False,
    dry_run: DryRun = False,
    budget: Budget = None,
    terminate: Terminate = False,
    yes: Yes = False,
) -> None:
    """Leave the source for the target: fence, drain, verify, open, switch.

    First all gates are asked (see [bold]readiness[/bold]), and what takes long is done while
    everybody works. Then the source is fenced: nobody can write there any more. What was written
    before is applied and compared, the target's sequences are set past the source's, and one
    commit opens the target: that is the point of no return. The hooks of migration.yaml send the
    applications over. Whatever fails before that commit, or takes longer than the budget, is
    undone, and the source is open again.

    Each step is written down before it is begun. Killed at any moment, the same command goes on
    where it was, or undoes it where the budget is used up. Both sides are never open together.

    Where nobody types it again, a running [bold]cdc-migrator run[/bold] undoes it 5 s after its
    budget, as long as the target is not open.

    Before, try it: [bold]--rehearse[/bold] does everything but open the target, and undoes it;
    writers are made to wait as they will be. [bold]--dry-run[/bold] tells what would be done.

    Exit code 0 when the target is open and the hooks are through (or the rehearsal went through);
    1 when it was undone, or a hook failed after the target was opened: type it again; 3 when a
    gate stands against it.

    Example: [bold]cdc-migrator cutover --rehearse && cdc-migrator cutover[/bold]
    """
    if ctx.invoked_subcommand is not None:
        return
    carry_out(ctx, rehearse, dry_run, budget, terminate, yes)


@app.command()
def status(ctx: typer.Context) -> None:
    """What the last cutover did, and what typing it again will do.

    Exit code 0 whatever it says; 1 where the target does not answer.

    Example: [bold]cdc-migrator cutover status -o json[/bold]
    """
    show_status(ctx)


@app.command()
def abort(
    ctx: typer.Context,
    source_only: Annotated[
        bool,
        typer.Option(
            "--source-only", help="Lift the source's fence without the target, which is lost."
        ),
    ] = False,
    target_is_gone: Annotated[
        bool,
        typer.Option(
            "--target-is-gone",
            help="With --source-only: also where the target may have been opened. What was "
            "written there is given up.",
        ),
    ] = False,
    yes: Yes = False,
) -> None:
    """Stop the cutover that is under way and undo it: the source is open again.

    Works from any machine, whether the process that carries it out lives, hangs or is gone. Once
    the target is open there is nothing to undo.

    With [bold]--source-only[/bold] the target is not asked, because it is lost: the source knows
    by itself how far things were. Where the target was about to be opened, nobody but you can tell
    whether it was: [bold]--target-is-gone[/bold] says that nobody will ever write there.

    Exit code 0 when the source is open; 1 when it is not yet, type it again; 3 when the target is
    open, or may be.

    Example: [bold]cdc-migrator cutover abort[/bold]
    """
    give_up(ctx, source_only, target_is_gone, yes)
