"""A batch folded and written out for COPY: all that can be done without the target. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cdc_migrator.apply.batcher import Batch
from cdc_migrator.apply.fold import Counts, fold
from cdc_migrator.apply.shape import Shape
from cdc_migrator.apply.signals import Heartbeat, Marker, signals
from cdc_migrator.apply.stage import Staged, encode
from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.tables import TableName


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch, ready to be sent.

    Attributes:
        staged: the tables that it changes, in name order: every process locks in one order.
        counts: events that the stream carried, by table.
    """

    batch: Batch
    staged: tuple[Staged, ...]
    counts: dict[TableName, Counts]
    markers: tuple[Marker, ...]
    heartbeats: tuple[Heartbeat, ...]


def prepare(batch: Batch, shapes: Mapping[TableName, Shape]) -> Prepared:
    """Fold and encode. Raises StreamHalted."""
    folded = fold(batch.transactions, shapes)
    markers, heartbeats = signals(folded.control)
    staged = []
    for state in sorted(folded.tables, key=lambda state: state.shape.name):
        try:
            staged.append(encode(state))
        except UnicodeEncodeError:
            raise StreamHalted(
                "CDCM-STREAM-UNDECODABLE",
                f"a row of {state.shape.name} is not valid Unicode",
                f"offsets below {batch.next_offset}",
            ) from None
    return Prepared(batch, tuple(staged), folded.counts, tuple(markers), tuple(heartbeats))
