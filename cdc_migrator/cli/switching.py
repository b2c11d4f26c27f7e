"""What `cutover` and `rollback` do when they are typed; with both sides changed over, the same."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import typer

from cdc_migrator.cli.abort import confirm
from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import Printer, printer
from cdc_migrator.errors import ConfigurationError, MigratorError

if TYPE_CHECKING:
    from cdc_migrator.config.database import Database
    from cdc_migrator.config.settings import Settings
    from cdc_migrator.cutover.hooks.base import Side
    from cdc_migrator.service.cutover import Ended
    from cdc_migrator.service.cutover_options import CutoverOptions


def _words(back: bool) -> tuple[Side, Side, str]:
    """The side that is left, the one that is opened, and the verb."""
    return ("target", "source", "rollback") if back else ("source", "target", "cutover")


def carry_out(
    ctx: typer.Context,
    rehearse: bool,
    dry_run: bool,
    budget: float | None,
    terminate: bool,
    yes: bool,
    back: bool = False,
) -> None:
    """The verb itself. Raises typer.Exit with its exit code where that is not 0."""
    from cdc_migrator.service.cutover import cut_over

    configured = settings(ctx)
    out = printer(ctx)
    if dry_run:
        _dry_run(out, configured, rehearse, back)
        return
    if not yes and not rehearse:
        confirm(configured.name, "go back" if back else "leave the source")
    stopping = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stopping.set())
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    with ExitStack() as stack:
        options = switch_options(stack, configured, rehearse, budget, terminate, back)
        ended = cut_over(options, rehearse, lambda text: out.say(f"  {text}"), stopping)
    _tell(out, ended, back=back)
    if stopping.is_set():
        raise typer.Exit(130)


def show_status(ctx: typer.Context, back: bool = False) -> None:
    """What the last attempt did, and what typing the verb again will do."""
    from cdc_migrator.cli.cutover_view import status_view
    from cdc_migrator.service.cutover_status import read

    configured = settings(ctx)
    name, leaving, entering = _sides(configured, back)
    document = read(
        name,
        leaving.dsn_with_password(),
        entering.dsn_with_password(),
        configured.cutover.budget.total_seconds(),
        back,
    )
    printer(ctx).data(document, lambda: status_view(document))


def give_up(ctx: typer.Context, alone: bool, gone: bool, yes: bool, back: bool = False) -> None:
    """Stop the attempt that is under way and undo it.

    Args:
        alone: without the side that would be opened. gone: that one is lost for good.
    """
    from cdc_migrator.service.cutover import undo
    from cdc_migrator.service.lifting import lift_alone

    configured = settings(ctx)
    out = printer(ctx)
    left, opened, verb = _words(back)
    if alone:
        if gone and not yes:
            confirm(configured.name, f"say that its {opened} is gone for good")
        name, leaving, _ = _sides(configured, back)
        lifted = lift_alone(name, leaving.dsn_with_password(), gone, back)
        if not out.for_people:
            out.data({"lifted": lifted})
        out.say(f"the {left} is open again" if lifted else f"the {left} is not fenced")
        return
    if gone:
        raise ConfigurationError(
            "CDCM-CUTOVER-OPTIONS",
            f"--{opened}-is-gone goes with --{left}-only",
            f"Without them the {opened} is asked.",
        )
    with ExitStack() as stack:
        options = switch_options(stack, configured, False, None, False, back)
        ended = undo(options, lambda text: out.say(f"  {text}"))
    if ended is None:
        if not out.for_people:
            out.data({"attempt": None, "state": None})
        out.say(f"no {verb} is under way")
        return
    _tell(out, ended, aborted=True, back=back)


def _sides(configured: Settings, back: bool) -> tuple[str, Database, Database]:
    """The migration, the side that is left, and the one that is opened."""
    from cdc_migrator.model.naming import way_back_of

    if back:
        return way_back_of(configured.name), configured.target, configured.source
    return configured.name, configured.source, configured.target


def switch_options(
    stack: ExitStack,
    configured: Settings,
    rehearsal: bool,
    budget: float | None,
    terminate: bool,
    back: bool = False,
) -> CutoverOptions:
    """What `service.cutover` works with under these settings; hooks are open until the stack is
    left. `back`: from the target to the source."""
    from cdc_migrator.cutover.fence import FenceOptions
    from cdc_migrator.cutover.hooks.base import Context, digest, opened
    from cdc_migrator.cutover.hooks.make import make
    from cdc_migrator.service.cutover_options import CutoverOptions
    from cdc_migrator.service.switching import Hooks

    source, target = configured.source, configured.target
    chosen = configured.cutover
    made = make(
        chosen.hooks, configured.name, source.dsn_with_password(), target.dsn_with_password()
    )
    left, entered = _words(back)[:2]
    context = Context(configured.name, 0, entered, source.parameters(), target.parameters())
    hooks = Hooks(stack.enter_context(opened(made)), context, left) if made else None
    name, leaving, entering = _sides(configured, back)
    return CutoverOptions(
        name=name,
        source_dsn=leaving.dsn_with_password(),
        target_dsn=entering.dsn_with_password(),
        unready=lambda: _against(configured) if back else _unready(configured, rehearsal),
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
        back=back,
    )


def undo_abandoned(configured: Settings, back: bool) -> None:
    """Undo the attempt that is under way; for the service, where its process is gone."""
    import structlog

    from cdc_migrator.service.cutover import undo

    log = structlog.get_logger("cdc_migrator.cutover")
    with ExitStack() as stack:
        ended = undo(
            switch_options(stack, configured, False, None, False, back),
            lambda text: log.info("undo", step=text),
        )
    if ended is not None:
        log.warning("cutover-undone", attempt=ended.attempt.attempt, state=str(ended.state))


def roll_back(configured: Settings, rule: str) -> None:
    """Go back to the source, because a rule of `watch` says so; for the service.

    Raises Failed: CDCM-ROLLBACK-UNDONE. MigratorError: as `service.cutover.cut_over`.
    """
    import structlog

    from cdc_migrator.cutover.machine import BEYOND
    from cdc_migrator.errors import Failed
    from cdc_migrator.service.cutover import cut_over

    log = structlog.get_logger("cdc_migrator.rollback")
    with ExitStack() as stack:
        options = switch_options(stack, configured, False, None, False, back=True)
        ended = cut_over(options, False, lambda text: log.info("rollback", step=text))
    log.warning("rolled-back", rule=rule, state=str(ended.state))
    if ended.state not in BEYOND:
        why = (ended.error or {}).get("cause", f"it stands at {ended.state}")
        raise Failed(
            "CDCM-ROLLBACK-UNDONE",
            f"the rollback was undone, and the target is open as before: {why}",
            "`cdc-migrator rollback status` tells more; it is tried again while the rule holds.",
        )


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


def _against(configured: Settings) -> list[tuple[str, str | None]]:
    """What stands against going back."""
    from cdc_migrator.databases.postgres.connect import connect
    from cdc_migrator.service.way_back import against

    called = f"cdcm-{configured.name}-rollback"
    with connect(
        configured.source.dsn_with_password(), application_name=called, side="source"
    ) as conn:
        return list(
            against(conn, configured.name, configured.service.takeover_after.total_seconds())
        )


def _tell(out: Printer, ended: Ended, aborted: bool = False, back: bool = False) -> None:
    """Tell how it ended. Raises typer.Exit with 1 or 3 where it is not what was wanted."""
    from cdc_migrator.cutover.machine import State

    left, opened, verb = _words(back)
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
    held = f"; the {left} was fenced {stall:.0f} ms before" if stall is not None else ""
    match ended.state:
        case State.DONE:
            out.say(f"done: the {opened} is open{held}", "green")
            if wrong := details.get("keys_error"):
                out.say(f"but not every foreign key is proven: {wrong['cause']}", "red")
            if details.get("verify_error"):
                out.say("but what was compared afterwards differs; see reconcile history", "red")
            elif not details.get("verified"):
                out.say(
                    "what was written to last was not compared: the process that kept both "
                    "sides' snapshots is gone",
                    "yellow",
                )
        case State.REHEARSED:
            out.say(f"rehearsed: everything short of opening the {opened} went through", "green")
            out.next(f"cdc-migrator {verb}")
        case State.UNDONE:
            out.say(f"undone: the {left} is open, as before", "yellow")
        case State.SWITCHING:
            out.say(f"the {opened} is open, but a hook failed: type the same command again", "red")
        case _:
            out.say(f"it stands at {ended.state}: type the same command again", "red")
    if ended.error is not None and ended.state is not State.DONE:
        out.say(f"error {ended.error['code']}: {ended.error['cause']}", "red")
        out.say(f"remedy: {ended.error['remedy']}")
    if ended.state in (State.DONE, State.REHEARSED) or (aborted and ended.state is State.UNDONE):
        return
    refused = (ended.error or {}).get("code") == "CDCM-CUTOVER-NOT-READY"
    raise typer.Exit(3 if refused else 1)


def _dry_run(out: Printer, configured: Settings, rehearsal: bool, back: bool) -> None:
    """Print each step, and the stall that is expected."""
    from cdc_migrator.cli.cutover_view import plan_view
    from cdc_migrator.service.cutover_status import plan
    from cdc_migrator.service.way_back import look

    chosen = configured.cutover
    name, _, entering = _sides(configured, back)
    document = plan(
        entering.dsn_with_password(),
        name,
        rehearsal,
        [hook.name or hook.kind for hook in chosen.hooks],
        {
            "budget_seconds": chosen.budget.total_seconds(),
            "fence_budget_seconds": chosen.fence_budget.total_seconds(),
            "max_lag_seconds": chosen.max_lag.total_seconds(),
            "terminate": chosen.terminate,
            "verify": chosen.verify,
        },
        back,
    )
    document["without_way_back"] = []
    with suppress(MigratorError):
        found = look(configured.name, configured.source.dsn_with_password())
        document["without_way_back"] = found.get("without", [])
    out.data(document, lambda: plan_view(document))
