"""Settle records that are kept back: apply them, or give them up.

Only the owner of the stream may do that, between two batches. So the running service is asked;
where none runs, the command takes the stream over for that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg

from cdc_migrator.apply.again import Tried, retry
from cdc_migrator.apply.applier import Applier
from cdc_migrator.apply.hands import Hands
from cdc_migrator.apply.pieces import PieceLimits
from cdc_migrator.control import (
    dead_letter_list,
    dead_letters,
    journal,
    migration,
    progress,
    requests,
    schema,
)
from cdc_migrator.control.dead_letter_list import Listed, Shown
from cdc_migrator.control.dead_letters import KeyState
from cdc_migrator.databases.postgres.coded import coded, speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import ConfigurationError, Failed, Refused
from cdc_migrator.model.changes import TruncatePolicy
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.tables import TableName
from cdc_migrator.service import asking, registry
from cdc_migrator.service.writer import Writer

KIND = "dead-letters"
_CALLED = "cdc-migrator dead-letters"
_PATIENCE_SECONDS = 120.0
_STALE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be done with which keys.

    Attributes:
        tables: of these alone. hashes: and whose hash begins so.
        reason: give them up, for this; None: apply them.
    """

    tables: tuple[TableName, ...]
    hashes: tuple[str, ...]
    reason: str | None
    who: str

    def to_details(self) -> dict[str, Any]:
        """As a request carries it."""
        return {
            "tables": [[one.schema, one.name] for one in self.tables],
            "hashes": list(self.hashes),
            "reason": self.reason,
            "who": self.who,
        }

    @classmethod
    def of(cls, details: dict[str, Any]) -> Asked:
        """What `to_details` has written."""
        return cls(
            tuple(TableName(*one) for one in details["tables"]),
            tuple(details["hashes"]),
            details["reason"],
            details["who"],
        )


def settle(applier: Applier, asked: Asked) -> list[Tried]:
    """Do it, as the owner of the stream, between two batches; what became of each chain.

    Raises as `Applier.between`.
    """
    done: list[Tried] = []

    def write(by: Hands) -> None:
        done.clear()
        chains = dead_letters.chains_of(by.conn, asked.tables, asked.hashes, KeyState.PARKED)
        if asked.reason is None:
            done.extend(retry(by, chains, asked.who))
        elif chains:
            dead_letters.skip(by.conn, chains, asked.reason, asked.who)

    applier.between(write, asked.tables)
    return done


class Settling:
    """Answers requests of this kind, in the running service."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def __call__(self, details: dict[str, Any]) -> dict[str, Any]:
        """The answer's document. Raises MigratorError and psycopg.Error."""
        asked = Asked.of(details)
        with self._writer.turn():
            return _document(self._writer.between_batches(lambda one: settle(one, asked)))


def _document(tried: Sequence[Tried]) -> dict[str, Any]:
    return {"tried": len(tried), "refused": sum(one.fault is not None for one in tried)}


@dataclass(frozen=True, slots=True)
class LetterOptions:
    """Which migration, and how its stream is applied. The functions give passwords as well."""

    name: str
    source_dsn: Callable[[], str]
    target_dsn: Callable[[], str]
    truncates: TruncatePolicy
    inline_rows: int
    retry_for: float


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of the keys: those that were asked for, as they were, and what is left of them.

    `by_service`: the running service has done it.
    """

    before: tuple[Listed, ...]
    left: tuple[Listed, ...]
    by_service: bool


def listed(
    options: LetterOptions, tables: Sequence[str] | None, limit: int | None
) -> tuple[list[Listed], dead_letters.Standing]:
    """The keys that are kept back, and how much there is in all. Raises MigratorError."""
    with _target(options) as target:
        found = dead_letter_list.listed(target, tables, None, limit)
        return found, dead_letters.standing(target)


def shown(options: LetterOptions, hashed: str, limit: int | None) -> list[Shown]:
    """The records of a key, and of those that it hangs together with.

    Raises ConfigurationError: CDCM-PARK-UNKNOWN.
    """
    with _target(options) as target:
        _wanted(target, None, (hashed,))
        return dead_letter_list.shown(target, hashed, limit)


def carry_out(
    options: LetterOptions,
    tables: Sequence[str] | None,
    hashes: Sequence[str] | None,
    reason: str | None,
) -> Settled:
    """Apply what is kept back of these keys, or give it up where there is a reason.

    Raises:
        ConfigurationError: CDCM-PARK-UNKNOWN: nothing like that is kept back.
        Refused: CDCM-PARK-SKIPPED: it was given up before.
        MigratorError: a database or the service failed.
    """
    with _target(options) as target:
        before = _wanted(target, tables, hashes)
        parked = [one for one in before if one.state == KeyState.PARKED]
        if before and not parked and reason is None:
            raise Refused(
                "CDCM-PARK-SKIPPED",
                "these records were given up, and later ones of their keys are not there",
                "`cdc-migrator reconcile --repair` writes their rows as the source has them.",
            )
        by_service = False
        if parked:
            asked = Asked(
                tuple(_name(table) for table in sorted({one.table for one in parked})),
                tuple(one.hash for one in parked),
                reason,
                journal.actor(),
            )
            by_service = _ask(target, asked)
            if not by_service:
                _alone(options, asked)
        return Settled(tuple(parked), tuple(_left(target, parked)), by_service)


def _left(target: psycopg.Connection, before: Sequence[Listed]) -> list[Listed]:
    if not before:
        return []
    return dead_letter_list.listed(target, None, [one.hash for one in before])


def _wanted(
    target: psycopg.Connection, tables: Sequence[str] | None, hashes: Sequence[str] | None
) -> list[Listed]:
    found = dead_letter_list.listed(target, tables, hashes)
    if not found and (tables is not None or hashes is not None):
        raise ConfigurationError(
            "CDCM-PARK-UNKNOWN",
            "no key like that is kept back",
            "`cdc-migrator dead-letters list` shows which are.",
        )
    return found


def _name(text: str) -> TableName:
    schema_name, _, table = text.partition(".")
    return TableName(schema_name, table)


def _ask(target: psycopg.Connection, asked: Asked) -> bool:
    """Ask the running service; False where none runs."""
    if not progress.alive(target, _STALE_SECONDS):
        return False
    target.execute(f"LISTEN {requests.ANSWERED}")
    silent = Failed(
        "CDCM-PARK-SILENT",
        f"the running service did not answer within {_PATIENCE_SECONDS:g} s",
        "See its log and `cdc-migrator status`, then run the same command again.",
    )

    def still_wanted() -> None:
        if not progress.alive(target, _STALE_SECONDS):
            raise silent

    number = requests.ask(target, KIND, asked.to_details())
    asking.answer(target, number, _PATIENCE_SECONDS, silent, still_wanted)
    return True


def _alone(options: LetterOptions, asked: Asked) -> None:
    """Take the stream over for it.

    Raises Failed: CDCM-PARK-SILENT: somebody else has taken it meanwhile.
    """
    with ExitStack() as stack:
        target = stack.enter_context(_target(options))
        there = migration.require(target, options.name)
        known = registry.read(target, options.source_dsn, options.name)
        applier = stack.enter_context(
            Applier(
                options.target_dsn(),
                known.tables,
                there.placeholder,
                sides=known.sides,
                rereads=known.rereads,
                migration=options.name,
                truncates=options.truncates,
                pieces=PieceLimits(inline=options.inline_rows),
                retry_for=options.retry_for,
            )
        )
        if applier.start(journal.actor(), _STALE_SECONDS) is None:
            raise Failed(
                "CDCM-PARK-SILENT",
                "a service has just begun to apply the stream",
                "Run the same command again.",
            )
        try:
            settle(applier, asked)
        except psycopg.Error as error:
            raise coded(error, "target", "settling what is kept back") from error
        finally:
            with suppress(psycopg.Error):
                progress.release(target, applier.epoch)


@contextmanager
def _target(options: LetterOptions) -> Iterator[psycopg.Connection]:
    dsn = login(options.target_dsn(), Role.APPLY)
    with (
        connect(dsn, application_name=_CALLED, side="target") as target,
        speaking("target", "looking at what is kept back"),
    ):
        migration.require(target, options.name)
        schema.ensure(target, "target")
        yield target
