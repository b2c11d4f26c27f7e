"""What a hook is, and running all of them: in order, each with its time limit and retries.

A hook may be killed at any moment and run again: whatever it does, doing it twice is the same as
doing it once, and the moment `UNDO` is right after any other, begun or done.

The first failure ends a moment, for what comes later in the order may rest on what comes before.
Not so `UNDO`: everything that can be undone is, whatever else fails.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Protocol

import orjson
from pydantic import BaseModel, SecretStr

from cdc_migrator.config.database import Database
from cdc_migrator.config.hooks import Webhook
from cdc_migrator.errors import Failed, MigratorError

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
_SAID = 500


class Moment(StrEnum):
    """When hooks are run.

    Attributes:
        CHECK: beforehand, and in a rehearsal: is everything there? Changes nothing that an
            application would notice; makes what the other moments need.
        HOLD: just before nobody may write: applications may be made to wait.
        SWITCH: one side is open, the other refuses: send applications there, and let them go on.
        UNDO: send them back, and let them go on; also where nothing was held or switched.
    """

    CHECK = "check"
    HOLD = "hold"
    SWITCH = "switch"
    UNDO = "undo"


Side = Literal["source", "target"]


@dataclass(frozen=True, slots=True)
class Context:
    """What hooks are told.

    Attributes:
        attempt: the cutover's number.
        side: where applications shall be after `SWITCH` or `UNDO`.
        source, target: libpq's parameters of both databases, without passwords.
    """

    migration: str
    attempt: int
    side: Side
    source: Mapping[str, str]
    target: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Ran:
    """A hook that did its work. `detail`: what it said of it, fit for the journal."""

    name: str
    moment: Moment
    seconds: float
    tries: int
    detail: str


class HookFailed(Exception):
    """One try did not work.

    Args:
        said: why, without secrets.
        again: whether another try may help.
    """

    def __init__(self, said: str, again: bool = True) -> None:
        super().__init__(said)
        self.said = said[:_SAID]
        self.again = again


class Hook(Protocol):
    """One hook, of any kind."""

    name: str
    retries: int

    def open(self) -> None:
        """Open what can be opened beforehand, for applications wait while hooks run.

        Never fails: what is not to be had is tried again when it is needed.
        """

    def close(self) -> None:
        """Close it."""

    def run(self, moment: Moment, context: Context) -> str | None:
        """One try, within the hook's time limit: what it did; None: nothing at this moment.

        Raises:
            HookFailed: it did not work.
            MigratorError: likewise, with a code of its own.
        """


@contextmanager
def opened(hooks: Sequence[Hook]) -> Iterator[Sequence[Hook]]:
    """The hooks, with everything open that can be opened beforehand."""
    with ExitStack() as stack:
        for hook in hooks:
            stack.callback(hook.close)
            hook.open()
        yield hooks


def run_all(
    hooks: Sequence[Hook],
    moment: Moment,
    context: Context,
    stopping: threading.Event | None = None,
) -> list[Ran]:
    """Run the hooks at a moment, in their order, at `UNDO` in the opposite one.

    Args:
        stopping: nothing is tried again once it is set.

    Returns:
        Those that had something to do.

    Raises:
        Failed: CDCM-HOOK-FAILED, with the hook's name, the moment and what it said.
        MigratorError: what a hook refuses with a code of its own.
    """
    stopping = stopping or threading.Event()
    done: list[Ran] = []
    failures: list[MigratorError] = []
    for hook in reversed(hooks) if moment is Moment.UNDO else hooks:
        try:
            ran = _run(hook, moment, context, stopping)
        except MigratorError as error:
            if moment is not Moment.UNDO:
                raise
            failures.append(error)
        else:
            if ran is not None:
                done.append(ran)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise _failed("; ".join(one.cause for one in failures), moment)
    return done


def rehearse(
    hooks: Sequence[Hook], context: Context, stopping: threading.Event | None = None
) -> list[Ran]:
    """Run the hooks' checks. Raises as `run_all`."""
    return run_all(hooks, Moment.CHECK, context, stopping)


def digest(hooks: Sequence[BaseModel]) -> str:
    """Of the hooks' settings, the same as long as they are; a password may change meanwhile."""
    plain = [_plain(hook) for hook in hooks]
    return hashlib.sha256(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Database):
        return value.parameters()
    if isinstance(value, Webhook):
        plain = {name: _plain(getattr(value, name)) for name in type(value).model_fields}
        return {**plain, "url": value.url.get_secret_value()}
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, SecretStr):
        return ""
    return value if value is None or isinstance(value, (str, int)) else str(value)


def _run(hook: Hook, moment: Moment, context: Context, stopping: threading.Event) -> Ran | None:
    began = time.monotonic()
    pause, tries = _FIRST_PAUSE, 0
    while True:
        tries += 1
        try:
            detail = hook.run(moment, context)
        except HookFailed as error:
            if not error.again or tries > hook.retries or stopping.wait(pause):
                times = f" ({tries} times)" if tries > 1 else ""
                cause = f"the hook {hook.name!r} failed at {moment}{times}: {error.said}"
                raise _failed(cause, moment) from error
        except Failed:
            if tries > hook.retries or stopping.wait(pause):
                raise
        else:
            if detail is None:
                return None
            return Ran(hook.name, moment, time.monotonic() - began, tries, detail)
        pause = min(pause * 2, _LONGEST_PAUSE)


def _failed(cause: str, moment: Moment) -> Failed:
    if moment is Moment.CHECK:
        remedy = "Correct the cause, and rehearse again."
    elif moment is Moment.HOLD:
        remedy = "Nothing is switched. Correct the cause, or raise the hook's `timeout`."
    elif moment is Moment.SWITCH:
        remedy = (
            "Correct the cause and run the same command again, which repeats all hooks; or send "
            "the applications there by hand."
        )
    else:
        remedy = (
            "The other hooks are undone. Correct the cause and run the same command again; or "
            "send the applications back by hand."
        )
    return Failed("CDCM-HOOK-FAILED", cause, remedy)
