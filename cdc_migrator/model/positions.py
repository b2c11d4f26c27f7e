"""Positions in the write-ahead log and in the topic; transaction ids and snapshots."""

from __future__ import annotations

from dataclasses import dataclass


def lsn_to_int(text: str) -> int:
    """``16/B374D848`` as a 64-bit number (PostgreSQL documentation, 8.20 pg_lsn Type)."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def lsn_to_text(lsn: int) -> str:
    """A 64-bit number in PostgreSQL's own notation, e.g. ``16/B374D848``."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def widen_xid(xid: int, near: int) -> int:
    """The 64-bit transaction id with the low 32 bits of `xid` that is nearest to `near`.

    Events carry 32 bits of the id, a snapshot carries 64: comparing them as they are would
    call every transaction visible on a cluster that has wrapped around.
    """
    candidate = near - (near & 0xFFFFFFFF) + (xid & 0xFFFFFFFF)
    return min(
        (candidate - (1 << 32), candidate, candidate + (1 << 32)), key=lambda c: abs(c - near)
    )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``pg_snapshot``: which transactions a read sees (documentation, 9.27.10)."""

    xmin: int
    xmax: int
    in_progress: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """From the text form ``xmin:xmax:xip,xip``."""
        xmin, xmax, xip = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(int(x) for x in xip.split(",") if x))

    def sees(self, xid: int) -> bool:
        """Whether the committed transaction with this (32- or 64-bit) id is visible."""
        wide = widen_xid(xid, self.xmax)
        return wide < self.xmin or (wide < self.xmax and wide not in self.in_progress)
