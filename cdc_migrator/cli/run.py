"""`run`: the long-running consumer."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import typer

from cdc_migrator.cli.context import session, settings

if TYPE_CHECKING:
    from cdc_migrator.config.settings import Settings


def run(ctx: typer.Context) -> None:
    """Apply the stream of changes to the target, until it is stopped.

    Rows and position are committed together, so it can be killed at any moment and started
    again. SIGTERM or Ctrl-C finishes the batch under way. A second process for the same stream
    stands by, and takes over when the first one shows no sign of life.

    It serves [bold]/metrics[/bold], [bold]/livez[/bold], [bold]/readyz?verbose[/bold] and
    [bold]/healthz[/bold] on service.http_host and service.http_port. What cannot be applied
    stops it with exit code 3, the position and a way out.

    Example: [bold]cdc-migrator run[/bold]
    """
    from cdc_migrator.cli import logs

    logs.configure(service=True, verbose=session(ctx).verbose)
    run_service(settings(ctx))


def run_service(configured: Settings) -> None:
    """Run the service with these settings until a signal ends it; raises what ends it else."""
    from cdc_migrator.apply.batcher import BatchLimits
    from cdc_migrator.cli.endpoints import endpoints
    from cdc_migrator.service.runner import RunOptions, Service

    places = endpoints(configured)
    apply, served = configured.apply, configured.service
    service = Service(
        RunOptions(
            migration=configured.name,
            source_dsn=configured.source.dsn_with_password,
            target_dsn=configured.target.dsn_with_password,
            kafka=places.kafka,
            connect_url=places.connect_url,
            limits=BatchLimits(
                rows=apply.max_batch_rows,
                bytes=apply.max_batch_bytes,
                age=apply.max_batch_age.total_seconds(),
            ),
            queue_bytes=apply.queue_bytes,
            retry_for=apply.retry_for.total_seconds(),
            takeover_after=served.takeover_after.total_seconds(),
            http_host=served.http_host,
            http_port=served.http_port,
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    service.run()
