"""The library in C beside Python's own way over the same records: what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from cdc_migrator.apply.fold import fold
from cdc_migrator.apply.fold_blocks import fold_blocks
from cdc_migrator.apply.stage import Staged, encode
from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Transaction, TruncatePolicy
from cdc_migrator.stream.assembler import Assembler
from cdc_migrator.stream.blocks import BlockDecoder, Stretch
from cdc_migrator.stream.envelope import Envelope, Record
from tests.oracle.records import Sent, shapes

TOPIC = "cdcm.shop.1.stream"
_INLINE = 4

_Read = tuple[list[Transaction], tuple[str, str] | None]


def compared(sent: Sequence[Sent], poll: int) -> tuple[str | None, bool]:
    """What differs, or None; and whether the library had anything to do with it."""
    ours = _read(BlockDecoder(Envelope(TOPIC), few=0).decode_many, sent, poll)
    oracle = _read(Envelope(TOPIC).decode_many, sent, poll)
    natively = any(isinstance(one.changes, Stretch) for one in ours[0])
    if ours[1] != oracle[1]:
        return f"reading ends with {ours[1]}, not with {oracle[1]}", natively
    if len(ours[0]) != len(oracle[0]):
        return f"{len(ours[0])} transactions, not {len(oracle[0])}", natively
    for one, other in zip(ours[0], oracle[0], strict=True):
        if replace(one, changes=[]) != replace(other, changes=[]):
            return f"{one} is not {other}", natively
        if len(one.changes) != len(other.changes) or list(one.changes) != list(other.changes):
            return f"changes of {one.xid}: {list(one.changes)} are not {other.changes}", natively
    return _folded(ours[0], oracle[0]), natively


def _read(
    decode: Callable[[Sequence[Any]], Iterable[Record]], sent: Sequence[Sent], poll: int
) -> _Read:
    assembler = Assembler(TOPIC, sent[0].at if sent else 0, 0)
    found: list[Transaction] = []
    try:
        for start in range(0, len(sent), poll):
            found.extend(assembler.assemble(decode(sent[start : start + poll])))
    except StreamHalted as halt:
        return found, (halt.code, str(halt))
    return found, None


def _folded(ours: Sequence[Transaction], oracle: Sequence[Transaction]) -> str | None:
    one, other = _outcome(_natively, ours), _outcome(_in_python, oracle)
    if one == other:
        return None
    return f"folded to {one}, not to {other}"


def _outcome(way: Callable[[Sequence[Transaction]], Any], some: Sequence[Transaction]) -> Any:
    try:
        return way(some)
    except StreamHalted as halt:
        return halt.code, str(halt)
    except UnicodeEncodeError:
        return "not Unicode"


def _natively(some: Sequence[Transaction]) -> Any:
    known = shapes()
    taken = fold_blocks(some, known, _INLINE)
    rest = fold(taken.rest, known, TruncatePolicy.APPLY)
    staged = [*taken.staged, *(encode(state, _INLINE) for state in rest.tables)]
    return _told(staged), taken.counts | rest.counts


def _in_python(some: Sequence[Transaction]) -> Any:
    folded = fold(some, shapes(), TruncatePolicy.APPLY)
    return _told([encode(state, _INLINE) for state in folded.tables]), folded.counts


def _told(staged: Iterable[Staged]) -> Any:
    return {
        one.shape.name: (
            one.truncated,
            one.deletes,
            one.complete,
            one.partial,
            sorted(b"".join(one.to_stage()).split(b"\n")),
            one.few and sorted(map(str, zip(*one.few, strict=True))),
        )
        for one in staged
    }
