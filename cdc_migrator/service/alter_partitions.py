"""Partitions that are detached, attached, or get other bounds, with the target's statements. Pure.

The rows of a partition that is detached are rows of the partitioned table no longer, without an
event for any of them; so the target's table is detached at the same place of the stream. The
partition stays part of the migration, as a table of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cdc_migrator.model.described import Ancestor, Described
from cdc_migrator.service.alter_words import quoted
from cdc_migrator.service.alteration import Change, Kind

KINDS: Final = frozenset({Kind.PARTITION_DETACHED, Kind.PARTITION_ATTACHED, Kind.BOUND_CHANGED})


def moved(before: Described, after: Described) -> Iterator[Change]:
    """What became of the tables that it is a part of, and of what they are parts of themselves."""
    was, now = _chain(before), _chain(after)
    known = _known(was) and _known(now)
    if not known:
        # An earlier release has noted the outermost one alone.
        was, now = _outermost(was), _outermost(now)
    alike = 0
    while alike < min(len(was), len(now)) and was[alike].oid == now[alike].oid:
        alike += 1
    # The last of those that stayed together is the one that went somewhere else.
    part = now[alike - 1]
    if alike < len(was):
        parent = was[alike].name
        yield Change(
            Kind.PARTITION_DETACHED,
            str(part.name),
            str(parent),
            None,
            (f"ALTER TABLE {quoted(parent)} DETACH PARTITION {quoted(part.name)}",),
            safe=True,
        )
    if alike < len(now):
        parent = now[alike].name
        yield Change(
            Kind.PARTITION_ATTACHED,
            str(part.name),
            None,
            str(parent),
            (_attach(part, now[alike]),),
            # Its rows arrive in either case.
            needed=False,
            safe=True,
        )
    if len(was) == len(now) == alike and known:
        for one, other, parent_ in zip(was, now, now[1:], strict=False):
            if one.bound != other.bound:
                yield _bound(one, other, parent_)


def met(change: Change, there: Described) -> bool:
    """Whether the target's table does not lack this change."""
    chain = _chain(there)
    parents = [str(one.name) for one in chain[1:]]
    if change.kind is Kind.PARTITION_DETACHED:
        return change.before not in parents
    if change.kind is Kind.PARTITION_ATTACHED:
        return change.after in parents
    return any(str(one.name) == change.what and one.bound == change.after for one in chain)


def _bound(was: Ancestor, now: Ancestor, parent: Ancestor) -> Change:
    detach = f"ALTER TABLE {quoted(parent.name)} DETACH PARTITION {quoted(now.name)}"
    return Change(
        Kind.BOUND_CHANGED,
        str(now.name),
        was.bound,
        now.bound,
        (detach, _attach(now, parent)),
        safe=True,
    )


def _attach(part: Ancestor, parent: Ancestor) -> str:
    return f"ALTER TABLE {quoted(parent.name)} ATTACH PARTITION {quoted(part.name)} {part.bound}"


def _chain(table: Described) -> tuple[Ancestor, ...]:
    """The table itself, then what it is a part of."""
    return (Ancestor(table.oid, table.name, table.bound), *table.ancestors)


def _known(chain: tuple[Ancestor, ...]) -> bool:
    return all(one.oid for one in chain)


def _outermost(chain: tuple[Ancestor, ...]) -> tuple[Ancestor, ...]:
    table, *rest = chain
    return (table, *(Ancestor(0, one.name, None) for one in rest[-1:]))
