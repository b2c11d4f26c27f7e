"""`cutover`: leave the source for the target, rehearse it, look at it, undo it."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_migrator.cli.abort import confirm
from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import Printer, printer
from cdc_migrator.errors import ConfigurationError

if TYPE_CHECKING:
    from cdc_migrator.config.settings import Settings
    from cdc_migrator.service.cutover import Ended
    from cdc_migrator.service.cutover_steps import CutoverOptions

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    invoke_without_command=True,
)

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for the migration's name.")]


@app.callback()
def cutover(
    ctx: typer.Context,
    rehearse: Annotated[
        bool,
        typer.Option("--rehearse", help="Everything short of opening the target; then undo it."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; print the steps and the stall.")
    ] = False,
    budget: Annotated[
        float | None,
        typer.Option(
            min=0.05, metavar="SECONDS", help="Instead of cutover.budget: how long writers wait."
        ),
    ] = None,
    terminate: Annotated[
        bool, typer.Option("--terminate", help="End sessions that stay in the fence's way.")
    ] = False,
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
    from cdc_migrator.service.cutover import cut_over

    configured = settings(ctx)
    out = printer(ctx)
    if dry_run:
        _dry_run(out, configured, rehearse)
        return
    if not yes and not rehearse:
        confirm(configured.name, "leave the source")
    stopping = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stopping.set())
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    with ExitStack() as stack:
        options = _options(stack, configured, rehearse, budget, terminate)
        ended = cut_over(options, rehearse, lambda text: out.say(f"  {text}"), stopping)
    _tell(out, ended)
    if stopping.is_set():
        raise typer.Exit(130)


@app.command()
def status(ctx: typer.Context) -> None:
    """What the last cutover did, and what typing it again will do.

    Exit code 0 whatever it says; 1 where the target does not answer.

    Example: [bold]cdc-migrator cutover status -o json[/bold]
    """
    from cdc_migrator.cli.cutover_view import status_view
    from cdc_migrator.service.cutover_status import read

    configured = settings(ctx)
    document = read(
        configured.name,
        configured.source.dsn_with_password(),
        configured.target.dsn_with_password(),
        configured.cutover.budget.total_seconds(),
    )
    printer(ctx).data(document, lambda: status_view(document))


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
    from cdc_migrator.service.cutover import lift_alone, undo

    configured = settings(ctx)
    out = printer(ctx)
    if source_only:
        if target_is_gone and not yes:
            confirm(configured.name, "say that its target is gone for good")
        lifted = lift_alone(configured.name, configured.source.dsn_with_password(), target_is_gone)
        if not out.for_people:
            out.data({"lifted": lifted})
        out.say("the source is open again" if lifted else "the source is not fenced")
        return
    if target_is_gone:
        raise ConfigurationError(
            "CDCM-CUTOVER-OPTIONS",
            "--target-is-gone goes with --source-only",
            "Without them the target is asked.",
        )
    with ExitStack() as stack:
        ended = undo(
            _options(stack, configured, False, None, False), lambda text: out.say(f"  {text}")
        )
    if ended is None:
        if not out.for_people:
            out.data({"attempt": None, "state": None})
        out.say("no cutover is under way")
        return
    _tell(out, ended, aborted=True)


def _options(
    stack: ExitStack,
    configured: Settings,
    rehearsal: bool,
    budget: float | None,
    terminate: bool,
) -> CutoverOptions:
    from cdc_migrator.cutover.fence import FenceOptions
    from cdc_migrator.cutover.hooks.base import Context, digest, opened
    from cdc_migrator.cutover.hooks.make import make
    from cdc_migrator.service.cutover_steps import CutoverOptions
    from cdc_migrator.service.switching import Hooks

    source, target = configured.source, configured.target
    chosen = configured.cutover
    made = make(
        chosen.hooks, configured.name, source.dsn_with_password(), target.dsn_with_password()
    )
    context = Context(configured.name, 0, "target", source.parameters(), target.parameters())
    hooks = Hooks(stack.enter_context(opened(made)), context, "source") if made else None
    return CutoverOptions(
        name=configured.name,
        source_dsn=source.dsn_with_password(),
        target_dsn=target.dsn_with_password(),
        unready=lambda: _unready(configured, rehearsal),
        hooks=hooks,
        budget=budget or chosen.budget.total_seconds(),
        fence=FenceOptions(
            budget=chosen.fence_budget.total_seconds(), terminate=terminate or chosen.terminate
        ),
        max_lag=chosen.max_lag.total_seconds(),
        inside=chosen.verify == "inside",
        verify_seconds=chosen.verify_budget.total_seconds(),
        keep_fence=target.fence,
        settings={"hooks": digest(chosen.hooks)},
    )


def undo_abandoned(configured: Settings) -> None:
    """Undo the attempt that is under way; for the service, where its process is gone."""
    import structlog

    from cdc_migrator.service.cutover import undo

    log = structlog.get_logger("cdc_migrator.cutover")
    with ExitStack() as stack:
        ended = undo(
            _options(stack, configured, False, None, False),
            lambda text: log.info("undo", step=text),
        )
    if ended is not None:
        log.warning("cutover-undone", attempt=ended.attempt.attempt, state=str(ended.state))


# What a rehearsal is there to find out, or what it does not need.
_NOT_REHEARSED = frozenset({"hooks", "backup", "way-back"})


def _unready(configured: Settings, rehearsal: bool) -> list[tuple[str, str | None]]:
    """Why it is not safe to go on, with the remedies."""
    from cdc_migrator.cli.measuring import inspect_options, limits, places
    from cdc_migrator.monitor.sampler import Sampler
    from cdc_migrator.service.readiness import look

    with Sampler(places(configured)) as sampler:
        found = look(inspect_options(configured), sampler, limits(configured))
    skipped = _NOT_REHEARSED if rehearsal else frozenset()
    against = [gate for gate in found.against if gate.name not in skipped]
    return list(dict.fromkeys((f"{gate.name}: {gate.reason}", gate.remedy) for gate in against))


def _dry_run(out: Printer, configured: Settings, rehearsal: bool) -> None:
    from cdc_migrator.cli.cutover_view import plan_view
    from cdc_migrator.service.cutover_status import plan

    chosen = configured.cutover
    document = plan(
        configured.target.dsn_with_password(),
        configured.name,
        rehearsal,
        [hook.name or hook.kind for hook in chosen.hooks],
        {
            "budget_seconds": chosen.budget.total_seconds(),
            "fence_budget_seconds": chosen.fence_budget.total_seconds(),
            "max_lag_seconds": chosen.max_lag.total_seconds(),
            "terminate": chosen.terminate,
            "verify": chosen.verify,
        },
    )
    out.data(document, lambda: plan_view(document))


def _tell(out: Printer, ended: Ended, aborted: bool = False) -> None:
    from cdc_migrator.cutover.machine import State

    attempt = ended.attempt
    details: dict[str, Any] = attempt.details
    if not out.for_people:
        out.data(
            {
                "attempt": attempt.attempt,
                "state": ended.state,
                "rehearsal": attempt.rehearsal,
                "resumed": ended.resumed,
                "error": ended.error,
                "details": details,
            }
        )
    stall = details.get("stall_ms")
    held = f"; the source was fenced {stall:.0f} ms before" if stall is not None else ""
    match ended.state:
        case State.DONE:
            out.say(f"done: the target is open{held}", "green")
            if details.get("verify_error"):
                out.say("but what was compared afterwards differs; see reconcile history", "red")
            elif not details.get("verified"):
                out.say(
                    "what was written to last was not compared: the process that kept both "
                    "sides' snapshots is gone",
                    "yellow",
                )
        case State.REHEARSED:
            out.say("rehearsed: everything short of opening the target went through", "green")
            out.next("cdc-migrator cutover")
        case State.UNDONE:
            out.say("undone: the source is open, as before", "yellow")
        case State.SWITCHING:
            out.say("the target is open, but a hook failed: type the same command again", "red")
        case _:
            out.say(f"it stands at {ended.state}: type the same command again", "red")
    if ended.error is not None and ended.state is not State.DONE:
        out.say(f"error {ended.error['code']}: {ended.error['cause']}", "red")
        out.say(f"remedy: {ended.error['remedy']}")
    if ended.state in (State.DONE, State.REHEARSED) or (aborted and ended.state is State.UNDONE):
        return
    refused = (ended.error or {}).get("code") == "CDCM-CUTOVER-NOT-READY"
    raise typer.Exit(3 if refused else 1)
