"""What the service tells: of each batch that is applied, and of what has ended it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import psycopg
import structlog

from cdc_migrator.apply.applied import Applied
from cdc_migrator.apply.batcher import Batch
from cdc_migrator.control import migration
from cdc_migrator.errors import MigratorError, StreamHalted
from cdc_migrator.model.changes import Op
from cdc_migrator.monitor.metrics import Metrics
from cdc_migrator.service.suspects import suspects

_OPS = (Op.INSERT, Op.UPDATE, Op.DELETE, Op.TRUNCATE)

_log = structlog.get_logger("cdc_migrator.service")


def tell_applied(metrics: Metrics, batch: Batch, applied: Applied) -> None:
    """Count a batch that was committed; with a word where something was unusual."""
    metrics.batch_applied(
        applied.seconds,
        applied.transactions,
        {
            (str(name), op): count
            for name, of_table in applied.counts.items()
            for op, count in zip(_OPS, of_table[:4], strict=True)
            if count
        },
        batch.redelivered,
        batch.suspect,
        applied.retries,
    )
    if batch.suspect:
        _log.warning("transactions-suspect", transactions=suspects(batch))
    if applied.parked:
        _log.warning("records-parked", records=applied.parked, offset=batch.next_offset)
    if applied.retries:
        _log.warning("applied-after-retries", retries=applied.retries, seconds=applied.seconds)


def write_down(target: Callable[[], psycopg.Connection], error: MigratorError) -> None:
    """Keep what has ended the service as the migration's last error, where the target answers."""
    document = error.as_dict() | {"at": datetime.now(UTC).isoformat()}
    if isinstance(error, StreamHalted):
        document["position"] = error.position
    _log.error("halted", **document)
    with suppress(MigratorError, psycopg.Error), target() as conn:
        migration.update(conn, "run-failed", last_error=document)
