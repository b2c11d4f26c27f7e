"""Turn routes around: which rows and columns come back from the target, and why some do not. Pure.

A column of the source comes back from the target's column that it went to, or from what `back`
says; any other stays as it is. What cannot be told from the mapping and both catalogs is a reason
against the way back, and all of them are told at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cdc_migrator.model.mapping import NO_BACK, Route, Wanted
from cdc_migrator.model.tables import Table, TableName
from cdc_migrator.model.wording import few

_Says = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Forth:
    """A route of the way there, and what stands about it.

    Attributes:
        table: the source's. there: the target's; None where it is not made yet.
        demanded: columns of the source's table that a new row needs, and that nothing gives by
            itself.
    """

    route: Route
    table: Table
    there: Table | None
    wanted: Wanted
    demanded: frozenset[str]

    @property
    def called(self) -> str:
        return f"{self.route.source} -> {self.route.target}"

    @property
    def stays(self) -> bool:
        """Whether its rows do not come back, knowingly."""
        return self.wanted.back == NO_BACK


@dataclass(frozen=True, slots=True)
class Against:
    """Why a table cannot come back, and what can be said so that it does."""

    called: str
    why: str
    say: str

    def __str__(self) -> str:
        return f"{self.called}: {self.why}"


@dataclass(frozen=True, slots=True)
class Inverse:
    """How one route is turned around, before any server was asked.

    Attributes:
        carried: columns of the source, each with the target's that it comes back from.
        given: columns of the source that `back` has an expression for.
        apart: columns of the target's key that are the same in all of the route's rows.
        leader: whose rows the source's rows come and go with; None: with this one's.
        beside: columns that other routes write, whose rows are parts of this one's.
    """

    forth: Forth
    carried: Mapping[str, str]
    given: Mapping[str, str]
    apart: tuple[str, ...] = ()
    leader: Inverse | None = None
    beside: frozenset[str] = frozenset()

    @property
    def within(self) -> tuple[str, ...]:
        """SQL over the target's row that is true of the partition's rows, where it is one."""
        bound = self.forth.route.bound
        return (f"({bound.condition}\n)",) if bound is not None else ()

    @property
    def telling(self) -> tuple[str, ...]:
        """The columns of the target by which the route's rows are told from others'."""
        bound = self.forth.route.bound
        return (*self.apart, *(bound.columns if bound is not None else ()))

    @property
    def written(self) -> frozenset[str]:
        return frozenset((*self.carried, *self.given))


@dataclass(slots=True)
class Inverted:
    """What came of it: leaders in front of the parts that go with them."""

    inverses: list[Inverse] = field(default_factory=list)
    against: list[Against] = field(default_factory=list)
    stays: list[Forth] = field(default_factory=list)


def invert(forths: Sequence[Forth]) -> Inverted:
    """Turn all routes of a migration around."""
    found = Inverted()
    of_source: dict[TableName, list[Forth]] = {}
    for forth in forths:
        if forth.stays:
            found.stays.append(forth)
        else:
            of_source.setdefault(forth.route.source, []).append(forth)
    for group in of_source.values():
        against: list[Against] = []
        made = [_inverse(one, against) for one in group]
        if not against:
            bare = [one for one in made if one.written <= set(one.forth.table.key)]
            if 0 < len(bare) < len(made):
                # Nothing of theirs could come back by itself.
                found.stays += [one.forth for one in bare if not one.forth.wanted.leads]
                made = [one for one in made if one not in bare or one.forth.wanted.leads]
            made = _led(made, against)
            for one in made:
                against += _unfiltered(one)
        if not against:
            found.inverses += made
        found.against += against
    return found


def _inverse(forth: Forth, against: list[Against]) -> Inverse:
    """One route by itself."""
    route, table = forth.route, forth.table
    stored = {one.name for one in table.carried}
    given = {name: text for name, text in forth.wanted.given.items() if name in stored}
    carried: dict[str, str] = {}
    for column in route.columns:
        if column.of is not None and column.of in stored and column.of not in given:
            carried.setdefault(column.of, column.name)

    def no(why: str, say: str) -> None:
        against.append(Against(forth.called, why, say))

    whole = forth.wanted.table.endswith(".*")
    for name in forth.wanted.given:
        if name not in stored and not whole:
            what = "is generated" if any(c.name == name for c in table.columns) else "is not there"
            no(f"{table.name}.{name}, of which `back` speaks, {what}", "Name stored columns.")
    if not table.key:
        no(f"{table.name} has no key, by which a row would be found", "Give it a primary key.")
    elif named := [name for name in table.key if name in given]:
        no(
            f"`back` says something else of {few(named)}, by which rows of {table.name} are found",
            "Leave the key out of `back`.",
        )
    else:
        _see_key(forth, [carried[name] for name in table.key], no)
    there = forth.there
    own = {carried[name] for name in table.key if name in carried}
    apart = tuple(name for name in there.key if name not in own) if there is not None else ()
    return Inverse(
        forth,
        carried,
        {name: text for name, text in given.items() if text is not None},
        apart,
    )


def _see_key(forth: Forth, own: Sequence[str], no: _Says) -> None:
    """Rows of the target are known by its key: it must tell which row of the source is meant."""
    there, route = forth.there, forth.route
    if there is None:
        return
    if there.divided:
        no(f"{there.name} is partitioned: its changes are told by partition", "")
    constant = {one.name for one in route.columns if not one.uses}
    wanted = f"Give it a primary key of {', '.join(own)}."
    if not there.key:
        no(f"{there.name} has no key, by which a row that changes there would be known", wanted)
    elif lacking := [name for name in own if name not in there.key]:
        no(
            f"the key of {there.name} ({', '.join(there.key)}) lacks {', '.join(lacking)}, by "
            f"which rows of {route.source} are found",
            wanted,
        )
    elif more := [name for name in there.key if name not in own and name not in constant]:
        no(
            f"the key of {there.name} has {', '.join(more)} as well: several of its rows could be "
            f"one of {route.source}",
            wanted,
        )


def _led(made: Sequence[Inverse], against: list[Against]) -> list[Inverse]:
    """With the one whose rows the source's come and go with."""
    if len(made) > 1:
        _see_once(made, against)
    said = [one for one in made if one.forth.wanted.leads]
    able = [one for one in made if not _lacking(one)]
    chosen = said or able
    if len(chosen) != 1 or (said and said[0] not in able):
        _no_leader(made, said, able, against)
        return list(made)
    parts = [one for one in made if one is not chosen[0]]
    leader = replace(chosen[0], beside=frozenset().union(*(one.written for one in parts)))
    parts = [replace(one, leader=leader) for one in parts]
    for one in parts:
        table = one.forth.table
        own = one.written.difference(table.key)
        needed = sorted(name for name in own if table.column(name).not_null)
        if needed:
            against.append(
                Against(
                    one.forth.called,
                    f"{few(needed)} of {table.name} cannot be empty, and a row of "
                    f"{one.forth.route.target} can be removed by itself",
                    f"Say `back: {{{needed[0]}: null}}`, so that it stays as it is, or allow NULL "
                    "on the source.",
                )
            )
    return [leader, *parts]


def _see_once(made: Sequence[Inverse], against: list[Against]) -> None:
    """A column that is in several tables of the target could come back as one or the other."""
    key = made[0].forth.table.key
    seen: dict[str, Inverse] = {}
    for one in made:
        for name in sorted(one.written.difference(key)):
            if name in seen:
                other = seen[name].forth.route.target
                against.append(
                    Against(
                        one.forth.called,
                        f"{one.forth.route.source}.{name} would come back from here and from "
                        f"{other}",
                        f"Say `back: {{{name}: null}}` in the entry that it does not come back "
                        "from.",
                    )
                )
            seen.setdefault(name, one)


def _lacking(one: Inverse) -> list[str]:
    """What a new row needs and this one does not give."""
    return sorted(one.forth.demanded - one.written)


def _no_leader(
    made: Sequence[Inverse],
    said: Sequence[Inverse],
    able: Sequence[Inverse],
    against: list[Against],
) -> None:
    source = made[0].forth.route.source
    tried = said or made
    if len(said) > 1 or (len(able) > 1 and not said):
        several = ", ".join(str(one.forth.route.target) for one in said or able)
        against.append(
            Against(
                f"{source} -> {several}",
                f"rows of {source} could come and go with those of each",
                "Say `leads: true` in the entry of the one that they do.",
            )
        )
        return
    for one in tried:
        lacking = _lacking(one)
        if not lacking:
            continue
        against.append(
            Against(
                one.forth.called,
                f"a new row of {source} demands {', '.join(lacking)} (NOT NULL, without a "
                f"default), which {one.forth.route.target} does not give",
                f'Say what it gets, as `back: {{{lacking[0]}: "…"}}`, or give it a default on '
                "the source.",
            )
        )


def _unfiltered(one: Inverse) -> list[Against]:
    """Whether rows that come back pass the filter must be known of each of them."""
    route = one.forth.route
    known = one.written | (frozenset(one.leader.given) if one.leader is not None else frozenset())
    unknown = [name for name in route.where_uses if name not in known]
    if not unknown:
        return []
    entry = "leading entry" if one.leader is not None else "entry"
    return [
        Against(
            one.forth.called,
            f"the filter reads {', '.join(unknown)}, which {route.target} does not have",
            f"Say in the {entry} what it is for rows that come back, as `back: {{{unknown[0]}: "
            '"…"}`.',
        )
    ]
