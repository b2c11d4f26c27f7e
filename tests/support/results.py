"""The results of a long proof: a line for each round, over all runs, in the project."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cdc_migrator import __version__


@dataclass(frozen=True)
class Results:
    """One file of JSON lines that only grows."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def stored(self) -> list[dict[str, Any]]:
        """All lines of all runs so far."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def append(self, *lines: Mapping[str, Any]) -> None:
        """Add lines, each with the time and the version."""
        stamp = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "version": __version__}
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a") as out:
            for line in lines:
                out.write(json.dumps({**stamp, **line}, ensure_ascii=False) + "\n")
