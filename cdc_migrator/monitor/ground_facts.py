"""What a stream stands on: what it was when capture began, and what it is now. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from cdc_migrator.model.retained import UNLIMITED, Retained


@dataclass(frozen=True, slots=True)
class SourceIdentity:
    """Which server the source is; None where the role may not know.

    Attributes:
        timeline: of its log; one more after each promotion of a standby. None on a standby.
        published: the migration's publication is there.
        invalidated: why the server has given the slot up, in its word.
    """

    system: str | None
    timeline: int | None
    published: bool
    invalidated: str | None


@dataclass(frozen=True, slots=True)
class GroundSample:
    """What the stream stood on when capture began, and what it stands on now; None is unknown.

    Attributes:
        system, timeline, topic_id: when capture began.
        source: now. present_topic_id: of the topic that has this name now.
        retained: the thresholds for the source's log.
    """

    system: str | None = None
    timeline: int | None = None
    topic_id: str | None = None
    source: SourceIdentity | None = None
    present_topic_id: str | None = None
    retained: Retained = UNLIMITED
