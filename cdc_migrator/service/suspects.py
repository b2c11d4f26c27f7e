"""Where the transactions lie whose start the connector could not prove, for the log."""

from __future__ import annotations

from cdc_migrator.apply.batcher import Batch
from cdc_migrator.model.positions import lsn_to_text


def suspects(batch: Batch) -> list[dict[str, str | int | None]]:
    """Each suspect transaction of a batch: its id, where it is said to begin, its first row."""
    return [
        {
            "xid": one.xid,
            "begins": lsn_to_text(one.begin_lsn),
            "first": lsn_to_text(one.changes[0].lsn) if one.changes else None,
            "table": str(one.changes[0].table) if one.changes else None,
        }
        for one in batch.transactions
        if one.suspect
    ]
