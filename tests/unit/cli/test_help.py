"""Help teaches: every verb says what it does, when, with what, and how it may end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from cdc_migrator.cli.main import VERBS, app, load_verb

# What can fail in a way of its own says with which exit code.
ENDS_IN_ITS_OWN_WAY = {
    "demo", "check", "migrate", "run", "status", "abort", "capture status", "stack status",
    "sequences plan", "sequences sync", "reconcile", "reconcile accept", "repair", "readiness",
    "backup verify", "journal verify", "validate", "baseline compare", "connectors lint",
}  # fmt: skip


def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The command and all below it, by what is typed."""
    yield path, command
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield from walk(inner, f"{path} {name}")


COMMANDS = dict(pair for verb in VERBS for pair in walk(load_verb(verb), verb.name))
each_command = pytest.mark.parametrize(("path", "command"), COMMANDS.items(), ids=COMMANDS)


def plain(text: str) -> str:
    return re.sub(r"\[/?bold\]", "", text)


@each_command
def test_help_begins_with_one_sentence_and_goes_on(path: str, command: Any) -> None:
    """What it does, in a line; then a paragraph."""
    first, *rest = plain(command.help).split("\n\n")
    assert re.fullmatch(r"[A-Z][^\n]{10,98}\.", first), first
    assert rest, "a paragraph behind it"
    assert all(paragraph.strip() for paragraph in rest)


@each_command
def test_help_ends_with_an_example_that_is_this_very_command(path: str, command: Any) -> None:
    """One that can be copied: its verb, its subcommands and its options exist."""
    *_, last = plain(command.help).split("\n\n")
    found = re.fullmatch(r"Example: cdc-migrator (.+)", last.strip())
    assert found, last
    typed = found[1]
    assert typed.startswith(path)
    words = typed.split()
    target, used = command, words[len(path.split()) :]
    while isinstance(target, TyperGroup) and not used[0].startswith("-"):
        target = target.commands[used.pop(0)]
    assert not isinstance(target, TyperGroup) or target.invoke_without_command
    known = {option for parameter in target.params for option in parameter.opts}
    assert {word for word in used if word.startswith("-")} <= known


@each_command
def test_every_option_and_argument_explains_itself(path: str, command: Any) -> None:
    """In a sentence, with a name for its value; a flag shows no value."""
    for parameter in command.get_params(typer.Context(command)):
        text = getattr(parameter, "help", None)
        assert text, f"{path}: {parameter.name}"
        assert text.rstrip().endswith((".", ":5432/database")), f"{path}: {parameter.name}: {text}"
        if getattr(parameter, "is_flag", False):
            assert parameter.metavar == "", f"{path}: {parameter.name}"


@each_command
def test_exit_codes_are_told_where_they_are_not_the_usual_ones(path: str, command: Any) -> None:
    """The usual ones stand in the first page of help."""
    told = re.search(r"[Ee]xit codes? ", plain(command.help)) is not None
    assert told or path not in ENDS_IN_ITS_OWN_WAY


def test_exit_codes_are_told_on_the_first_page() -> None:
    """And the way from the first verb to the last."""
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100"}).output
    codes = re.search(r"Exit codes: (.+?)\. A failure", shown, re.S)
    assert codes
    assert re.findall(r"\b(\d+) ", codes[1]) == ["0", "1", "2", "3", "130"]
    way = [shown.index(verb) for verb in ("demo", "init", "check", "migrate", "status", "abort")]
    assert way == sorted(way)


@pytest.mark.parametrize("path", COMMANDS)
def test_help_is_printed_whole_on_a_narrow_terminal(path: str) -> None:
    """Exit code 0, every line within 80 columns, no markup left in it."""
    ended = CliRunner().invoke(app, [*path.split(), "--help"], env={"COLUMNS": "80"})
    assert ended.exit_code == 0
    assert max(map(len, ended.output.splitlines())) <= 80
    assert "[bold]" not in ended.output
    assert "[/" not in ended.output
    assert re.search(rf"Usage: \S+ {path} ", ended.output)
