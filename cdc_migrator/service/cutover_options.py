"""What a cutover, or a rollback, works with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cdc_migrator.backfill.sequences import DEFAULT_MARGIN
from cdc_migrator.cutover.fence import FenceOptions
from cdc_migrator.model.naming import way_back_of, way_there_of
from cdc_migrator.service.switching import Hooks


@dataclass(frozen=True, slots=True)
class CutoverOptions:
    """Which migration, and how it leaves the source. The strings hold passwords.

    On the way back everything is the other way round: its source is the way there's target.

    Attributes:
        back: it is the way back.
        budget: seconds from the source's fence to the target being open.
        fence: how long others may be made to wait for the fence.
        max_lag: seconds; the source is not fenced while the target is further behind.
        inside: compare what was written to while nobody can write, for at most `verify_seconds`;
            else, and what is left, after the target is open.
        keep_fence: the target stays fenced where the attempt is undone.
        unready: why it is not safe to switch over, each reason with its remedy; asked once.
        hooks: None: people switch the applications.
        settings: what is written down of all this, without secrets.
    """

    name: str
    source_dsn: str
    target_dsn: str
    unready: Callable[[], Sequence[tuple[str, str | None]]]
    hooks: Hooks | None
    budget: float = 10.0
    fence: FenceOptions = field(default_factory=FenceOptions)
    max_lag: float = 2.0
    inside: bool = True
    verify_seconds: float = 2.0
    margin: int = DEFAULT_MARGIN
    keep_fence: bool = True
    settings: dict[str, Any] = field(default_factory=dict)
    back: bool = False

    @property
    def called(self) -> str:
        """How its sessions are called on both servers."""
        return f"cdcm-{self.name}-cutover"

    @property
    def leaving(self) -> str:
        """What the side that is left is called."""
        return "target" if self.back else "source"

    @property
    def entering(self) -> str:
        """What the side that is opened is called."""
        return "source" if self.back else "target"

    @property
    def command(self) -> str:
        return "rollback" if self.back else "cutover"

    @property
    def opposite(self) -> str:
        """The migration of the other direction."""
        return way_there_of(self.name) if self.back else way_back_of(self.name)
