"""`run`: the long-running consumer."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING, Annotated

import typer

from cdc_migrator.cli.context import session, settings
from cdc_migrator.model.changes import SchemaPolicy

if TYPE_CHECKING:
    from cdc_migrator.config.settings import Settings


def run(
    ctx: typer.Context,
    ddl: Annotated[
        SchemaPolicy | None,
        typer.Option(
            "--ddl",
            help="Where the source changes its schema: halt until the target has the change, or "
            "apply what is safe; instead of apply.ddl.",
        ),
    ] = None,
) -> None:
    """Apply the stream of changes to the target, until it is stopped.

    Rows and position are committed together, so it can be killed at any moment and started
    again; it goes on where it was. SIGTERM or Ctrl-C finishes the batch under way (a second
    Ctrl-C does not wait for it). A second process for the same stream stands by, and takes over
    when the first one shows no sign of life.

    With reconcile.continuous it also compares both sides all the time, at a share of it
    (reconcile.share), as `reconcile --mode incremental` does; `status` shows what differs.

    Once the target is open it watches it, by the rules of [bold]watch[/bold] in migration.yaml.

    Where the source changes the schema of a table it stops exactly there, names the statement that
    the target needs, and goes on once that was run. With [bold]--ddl apply[/bold] it runs what is
    safe by itself.

    It serves [bold]/metrics[/bold], [bold]/livez[/bold], [bold]/readyz?verbose[/bold] and
    [bold]/healthz[/bold] on service.http_host and service.http_port. It logs to stdout, in JSON
    lines where that is no terminal.

    Exit code 0 after SIGTERM, 130 after Ctrl-C; 3 with the position and a way out when a change
    cannot be applied (nothing behind it was); 1 when something was away for too long: start it
    again.

    Example: [bold]cdc-migrator run --set service.http_port=9090[/bold]
    """
    from cdc_migrator.cli import logs

    logs.configure(service=True, verbose=session(ctx).verbose)
    configured = settings(ctx)
    if ddl is not None:
        chosen = configured.apply.model_copy(update={"ddl": ddl})
        configured = configured.model_copy(update={"apply": chosen})
    run_service(configured)


def run_service(configured: Settings) -> None:
    """Run the service with these settings until a signal ends it; raises what ends it else.

    Raises typer.Exit with 130 where the signal was SIGINT.
    """
    from cdc_migrator.apply.batcher import BatchLimits
    from cdc_migrator.cli.endpoints import endpoints
    from cdc_migrator.cli.measuring import (
        inspect_options,
        limits,
        retained,
        shall_move,
        watch_options,
    )
    from cdc_migrator.cli.steps import Logged, migrate_options, migrate_steps, rotations
    from cdc_migrator.cli.switching import roll_back, undo_abandoned
    from cdc_migrator.service.comparing import Continuous
    from cdc_migrator.service.completing import Completing, finish_foreign_keys
    from cdc_migrator.service.guarding import Guardian
    from cdc_migrator.service.hosting import Hosting
    from cdc_migrator.service.mapping import require_unchanged
    from cdc_migrator.service.options import RunOptions
    from cdc_migrator.service.runner import Service
    from cdc_migrator.stream.spill import SpillLimits

    places = endpoints(configured)
    steps = migrate_steps(configured, Logged(time.monotonic))
    require_unchanged(migrate_options(configured))
    apply, served, compare = configured.apply, configured.service, configured.reconcile
    completing = Completing(steps, apply.ddl)
    options = RunOptions(
        migration=configured.name,
        source_dsn=configured.source.dsn_with_password,
        target_dsn=configured.target.dsn_with_password,
        brokers=places.brokers,
        workers=places.workers,
        limits=BatchLimits(
            rows=apply.max_batch_rows,
            bytes=apply.max_batch_bytes,
            age=apply.max_batch_age.total_seconds(),
        ),
        inline_rows=apply.inline_rows,
        queue_bytes=apply.queue_bytes,
        spill=SpillLimits(
            rows=max(apply.max_batch_rows, SpillLimits().rows),
            bytes=apply.transaction_bytes,
            directory=apply.spill_dir,
        ),
        ddl=apply.ddl,
        complete=completing.ask,
        truncates=apply.truncates,
        bad_records=apply.bad_records,
        most_parked=apply.most_parked,
        retry_for=apply.retry_for.total_seconds(),
        reread=steps.read_again,
        reread_bytes=apply.reread_bytes,
        continuous=Continuous(
            compare.share,
            compare.repair,
            compare.max_proof_age,
            compare.every.total_seconds(),
        )
        if compare.continuous
        else None,
        takeover_after=served.takeover_after.total_seconds(),
        fence=configured.target.fence,
        shall_move=shall_move(configured),
        ready=limits(configured),
        inspected=inspect_options(configured),
        inspect_every=configured.ready.inspect_every.total_seconds(),
        watched=watch_options(configured),
        roll_back=lambda firing: roll_back(configured, firing.rule),
        http_host=served.http_host,
        http_port=served.http_port,
        retained=retained(configured),
    )
    service = Service(options)
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        service.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who insists need not wait

    signal.signal(signal.SIGTERM, lambda *_: service.stop())
    signal.signal(signal.SIGINT, interrupt)
    ended = threading.Event()
    threading.Thread(
        target=finish_foreign_keys, args=(steps, ended), name="foreign keys", daemon=True
    ).start()
    threading.Thread(target=completing.keep, args=(ended,), name="completing", daemon=True).start()
    for back, dsn in ((False, options.target_dsn), (True, options.source_dsn)):
        guardian = Guardian(
            dsn,
            configured.cutover.budget.total_seconds(),
            lambda back=back: undo_abandoned(configured, back),  # type: ignore[misc]
        )
        threading.Thread(target=guardian.guard, args=(ended,), name="guardian", daemon=True).start()
    for rotating in rotations(configured, places):
        threading.Thread(target=rotating.keep, args=(ended,), name="secrets", daemon=True).start()
    try:
        with Hosting(options.mirrored()):
            service.run()
    finally:
        ended.set()
    if interrupted:
        raise typer.Exit(130)
