"""All rules in force: those of the file and those in migration.yaml, each with its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cdc_migrator.config import document
from cdc_migrator.config.document import Document, Fault
from cdc_migrator.config.loader import load_group, refuse
from cdc_migrator.config.rules import Rule, RulesFile, told_apart
from cdc_migrator.config.validate import Validate, digest
from cdc_migrator.errors import ConfigurationError

UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Rulebook:
    """Attributes:
    place: where a field of the rule with this number stands, for messages.
    """

    rules: tuple[Rule, ...]
    place: Callable[[int, str], str]


def read(settings: Validate, path: Path | None, other: Path | None = None) -> Rulebook:
    """The rules in force.

    Args:
        path: migration.yaml; None where there is none.
        other: a file of rules instead of all that the settings name.

    Raises:
        ConfigurationError: as `config.loader.load_group`; two rules are called the same.
    """
    inline = () if other is not None else settings.rules
    file = other or settings.file
    rules: tuple[Rule, ...] = ()
    ours: Document | None = None
    if file is not None:
        found, ours = load_group(file, RulesFile)
        rules = found.rules
    theirs = document.read(path) if path is not None and inline else None

    def place(number: int, field: str) -> str:
        if number < len(rules):
            assert ours is not None
            return f"{ours.place(('rules', number, field))}: rules.{number}.{field}"
        own = number - len(rules)
        key = f"validate.rules.{own}.{field}"
        return f"{theirs.place(('validate', 'rules', own, field))}: {key}" if theirs else key

    try:
        told_apart((*rules, *inline))
    except ValueError as error:
        where = file.name if file is not None else ""
        raise refuse([Fault(where, "rules", str(error), "invalid")]) from None
    return Rulebook((*rules, *inline), place)


def in_force(settings: Validate) -> str | None:
    """The digest of the rules in force; None where there are none.

    Where their file cannot be read it is one that no result has.
    """
    if settings.file is None and not settings.rules:
        return None
    try:
        rules = read(settings, None).rules
    except ConfigurationError:
        return UNREADABLE
    return digest(rules) if rules else None
