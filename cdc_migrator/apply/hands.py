"""What writes rows on the applier's session, and the plain way to write a batch's pieces."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import psycopg

from cdc_migrator.apply.applied import Tally
from cdc_migrator.apply.marks import Marks
from cdc_migrator.apply.merge import Merger
from cdc_migrator.apply.prepared import Piece, Preparer


@dataclass(frozen=True, slots=True)
class Hands:
    """For one transaction on this session."""

    conn: psycopg.Connection
    merger: Merger
    marks: Marks
    preparer: Preparer

    def begin(self, piece: Piece, tally: Tally) -> None:
        """Count a piece and do what comes before its rows."""
        tally.take(piece)
        self.marks.heed(piece.markers)
        truncated = [one.shape.name for one in piece.staged if one.truncated]
        if truncated:
            self.merger.truncate(truncated)

    def write(self, pieces: Iterable[Piece], tally: Tally) -> None:
        """Write all rows. Raises as `Merger.write`; `tally.at` then names the table."""
        for piece in pieces:
            self.begin(piece, tally)
            for one in piece.staged:
                tally.at = one.shape.name
                straight = not self.marks.asks_of(one.shape.name)
                self.merger.write(one, straight)
            tally.at = None
            self.marks.note(piece.staged, self.merger.places)
            del piece  # before the next one is made
