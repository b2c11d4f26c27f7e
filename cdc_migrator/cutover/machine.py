"""The cutover's states, and what leads from one to the next. Pure: a table, and nothing else.

What a state stands for is begun after the state is written down, so whoever finds it knows what
may have happened. Every state's work can be repeated. Up to `OPENING` everything can be undone;
the commit that opens the target is the point of no return from undoing to going on.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a cutover stands; its work is under way, or has been broken off."""

    CHECKING = "checking"
    PREPARING = "preparing"
    HOLDING = "holding"
    FENCING = "fencing"
    DRAINING = "draining"
    VERIFYING = "verifying"
    SEQUENCES = "sequences"
    OPENING = "opening"
    SWITCHING = "switching"
    UNDOING = "undoing"
    DONE = "done"
    UNDONE = "undone"
    REHEARSED = "rehearsed"


class Signal(StrEnum):
    """What happened in a state.

    OK: its work is done. FAILED: it cannot be, or somebody asked to stop. REHEARSED: it is done,
    and was only to be tried. BROKEN: a new process found the state, whose own one is gone, with
    time left; LATE: with none left. OPENED: the target is found open.
    """

    OK = "ok"
    FAILED = "failed"
    REHEARSED = "rehearsed"
    BROKEN = "broken off"
    LATE = "broken off, too late"
    OPENED = "target is open"


_S, _G = State, Signal

TABLE: dict[tuple[State, Signal], State] = {
    (_S.CHECKING, _G.OK): _S.PREPARING,
    (_S.CHECKING, _G.FAILED): _S.UNDONE,
    (_S.CHECKING, _G.BROKEN): _S.UNDONE,
    (_S.CHECKING, _G.LATE): _S.UNDONE,
    (_S.PREPARING, _G.OK): _S.HOLDING,
    (_S.PREPARING, _G.FAILED): _S.UNDOING,
    (_S.PREPARING, _G.BROKEN): _S.UNDOING,
    (_S.PREPARING, _G.LATE): _S.UNDOING,
    (_S.HOLDING, _G.OK): _S.FENCING,
    (_S.HOLDING, _G.FAILED): _S.UNDOING,
    (_S.HOLDING, _G.BROKEN): _S.UNDOING,
    (_S.HOLDING, _G.LATE): _S.UNDOING,
    (_S.FENCING, _G.OK): _S.DRAINING,
    (_S.FENCING, _G.FAILED): _S.UNDOING,
    (_S.FENCING, _G.BROKEN): _S.UNDOING,
    (_S.FENCING, _G.LATE): _S.UNDOING,
    (_S.DRAINING, _G.OK): _S.VERIFYING,
    (_S.DRAINING, _G.FAILED): _S.UNDOING,
    (_S.DRAINING, _G.BROKEN): _S.DRAINING,
    (_S.DRAINING, _G.LATE): _S.UNDOING,
    (_S.VERIFYING, _G.OK): _S.SEQUENCES,
    (_S.VERIFYING, _G.FAILED): _S.UNDOING,
    (_S.VERIFYING, _G.BROKEN): _S.VERIFYING,
    (_S.VERIFYING, _G.LATE): _S.UNDOING,
    (_S.SEQUENCES, _G.OK): _S.OPENING,
    (_S.SEQUENCES, _G.REHEARSED): _S.UNDOING,
    (_S.SEQUENCES, _G.FAILED): _S.UNDOING,
    (_S.SEQUENCES, _G.BROKEN): _S.SEQUENCES,
    (_S.SEQUENCES, _G.LATE): _S.UNDOING,
    (_S.OPENING, _G.OK): _S.SWITCHING,
    (_S.OPENING, _G.OPENED): _S.SWITCHING,
    (_S.OPENING, _G.FAILED): _S.UNDOING,
    (_S.OPENING, _G.BROKEN): _S.OPENING,
    (_S.OPENING, _G.LATE): _S.UNDOING,
    (_S.SWITCHING, _G.OK): _S.DONE,
    (_S.SWITCHING, _G.FAILED): _S.SWITCHING,
    (_S.SWITCHING, _G.BROKEN): _S.SWITCHING,
    (_S.SWITCHING, _G.LATE): _S.SWITCHING,
    (_S.UNDOING, _G.OK): _S.UNDONE,
    (_S.UNDOING, _G.REHEARSED): _S.REHEARSED,
    (_S.UNDOING, _G.FAILED): _S.UNDOING,
    (_S.UNDOING, _G.BROKEN): _S.UNDOING,
    (_S.UNDOING, _G.LATE): _S.UNDOING,
}

ENDED = frozenset({State.DONE, State.UNDONE, State.REHEARSED})
# The source may be fenced here, and the target is not open: each moment counts.
STALLED = frozenset(
    {State.FENCING, State.DRAINING, State.VERIFYING, State.SEQUENCES, State.OPENING}
)
BEYOND = frozenset({State.SWITCHING, State.DONE})


class IllegalSignal(ValueError):
    """A signal that means nothing in this state; nothing was changed."""


def after(state: State, signal: Signal) -> State:
    """The state that follows. Raises IllegalSignal."""
    try:
        return TABLE[state, signal]
    except KeyError:
        raise IllegalSignal(f"{signal!s} means nothing while {state!s}") from None


def diagram() -> str:
    """The table as a Mermaid state diagram, for the documentation."""
    edges: dict[tuple[State, State], list[str]] = {}
    for (state, signal), follows in TABLE.items():
        edges.setdefault((state, follows), []).append(str(signal))
    lines = ["stateDiagram-v2", f"    [*] --> {State.CHECKING}"]
    for (state, follows), signals in edges.items():
        lines.append(f"    {state} --> {follows}: {' / '.join(signals)}")
    lines += [f"    {state} --> [*]" for state in State if state in ENDED]
    return "\n".join(lines) + "\n"
