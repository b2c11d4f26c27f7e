"""What of the ground under a stream is lost for good: changes that no waiting brings back.

Pure: one sample in. What was not measured is not lost. The way out is always the same: capture
begins anew (`service.recapture`), the target's rows stay, and what differs is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cdc_migrator.control.migration import Phase
from cdc_migrator.model.positions import lsn_to_text
from cdc_migrator.monitor.ground_facts import GroundSample
from cdc_migrator.monitor.sample import Sample

WAY_OUT: Final = (
    "`cdc-migrator migrate --new-capture` captures anew from the source as it is now: the target's "
    "rows stay, and only what differs is written."
)
CODES: Final = (
    "CDCM-SLOT-LOST",
    "CDCM-PUBLICATION-LOST",
    "CDCM-SOURCE-CHANGED",
    "CDCM-STREAM-GAP",
    "CDCM-STREAM-TOPIC-ANEW",
    "CDCM-STREAM-TOPIC-MISSING",
)
# What is applied of such a stream may be of another history: nothing more must be.
HALTING: Final = frozenset({"CDCM-SOURCE-CHANGED", "CDCM-STREAM-TOPIC-ANEW"})
# What a connector says that decodes log of a time at which there was no publication.
_UNPUBLISHED = re.compile(r'publication "?[^" ]+"? does not exist', re.IGNORECASE)
# What it says where the slot begins behind what it has read: somebody has made another one.
_BEYOND = re.compile(r"trying to read change stream starting at", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Loss:
    """One way in which ground is lost, in the form of an error."""

    code: str
    cause: str
    remedy: str = WAY_OUT

    def as_dict(self) -> dict[str, str]:
        """The machine-readable form."""
        return {"code": self.code, "cause": self.cause, "remedy": self.remedy}


def losses(sample: Sample) -> tuple[Loss, ...]:
    """Everything that is lost; empty also while capture has not begun, or is left behind."""
    ground = sample.ground
    if ground is None or sample.phase is None or sample.phase.reached(Phase.SWITCHED):
        return ()
    return (*_on_source(sample, ground), *_in_kafka(sample, ground))


def _on_source(sample: Sample, ground: GroundSample) -> Iterator[Loss]:
    now, slot = ground.source, sample.slot
    trace = (sample.connector.trace if sample.connector else None) or ""
    if now is None:
        return
    if None not in (now.system, ground.system) and now.system != ground.system:
        yield Loss(
            "CDCM-SOURCE-CHANGED",
            "the source is another server than the one that was captured from: its system "
            f"identifier is {now.system}, not {ground.system}",
        )
    elif (
        now.timeline is not None and ground.timeline is not None and now.timeline != ground.timeline
    ):
        yield Loss(
            "CDCM-SOURCE-CHANGED",
            f"the source has failed over: it writes timeline {now.timeline}, and capture began on "
            f"{ground.timeline}; what was captured before may not be part of its history",
        )
    if slot is not None and not slot.exists:
        yield Loss(
            "CDCM-SLOT-LOST",
            f"the replication slot {slot.name} is gone from the source: what is written until "
            "there is another one is in no stream",
        )
    elif slot is not None and slot.wal_status == "lost":
        why = f" ({now.invalidated})" if now.invalidated else ""
        yield Loss(
            "CDCM-SLOT-LOST",
            f"the source has given the replication slot {slot.name} up{why}: the log that it "
            "needs is gone",
        )
    elif slot is not None and _BEYOND.search(trace):
        yield Loss(
            "CDCM-SLOT-LOST",
            f"the replication slot {slot.name} is another one than the connector has read from: "
            "what was written before it was made is in no stream",
        )
    if not now.published or _UNPUBLISHED.search(trace):
        yield Loss(
            "CDCM-PUBLICATION-LOST",
            "the publication is gone from the source, or was for a while: what was written then "
            "cannot be decoded any more",
        )


def _in_kafka(sample: Sample, ground: GroundSample) -> Iterator[Loss]:
    stream, kept = sample.stream, sample.retention
    if any(note.code == "CDCM-STREAM-TOPIC-MISSING" for note in sample.notes):
        yield Loss("CDCM-STREAM-TOPIC-MISSING", "the stream's topic does not exist any more")
    elif (
        ground.topic_id is not None
        and ground.present_topic_id is not None
        and ground.topic_id != ground.present_topic_id
    ):
        yield Loss(
            "CDCM-STREAM-TOPIC-ANEW",
            "the stream's topic was deleted and made again under the same name: its offsets are "
            "not those that were stored",
        )
    elif stream is not None and kept is not None and stream.next_offset < kept.start_offset:
        yield Loss(
            "CDCM-STREAM-GAP",
            f"the topic begins at offset {kept.start_offset}, and the next to apply is "
            f"{stream.next_offset}: what lay between was deleted before it was applied",
        )
    elif (
        stream is not None
        and sample.end_offset is not None
        and stream.next_offset > sample.end_offset
    ):
        yield Loss(
            "CDCM-STREAM-GAP",
            f"the topic ends at offset {sample.end_offset}, and all below {stream.next_offset} "
            f"was applied (up to {lsn_to_text(stream.commit_position)}): it was made again or cut",
        )


def retained_beyond(sample: Sample) -> tuple[int, str | None]:
    """How far the log that the source keeps is beyond its thresholds: 0, 1 (warn) or 2 (limit),
    and in words."""
    slot, ground = sample.slot, sample.ground
    if slot is None or slot.retained_bytes is None or ground is None:
        return 0, None
    kept, thresholds = slot.retained_bytes, ground.retained
    for level, of, name in (
        (2, thresholds.limit, "capture.retained_wal_limit"),
        (1, thresholds.warn, "capture.retained_wal_warn"),
    ):
        if of is not None and kept > of:
            return level, (
                f"the source keeps {kept >> 20} MiB of log for the slot {slot.name}, which is "
                f"above {name} ({of >> 20} MiB)"
            )
    return 0, None
