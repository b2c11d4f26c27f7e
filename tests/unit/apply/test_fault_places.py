"""The crash matrix knows every place of the applier that can be struck."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import cdc_migrator.apply
from tests.faults.places import PLACES

Function = ast.FunctionDef | ast.AsyncFunctionDef


def names_reached(sources: list[str]) -> set[str]:
    """What `reach` is called with, following parameters back to the literals at their callers."""
    functions = [
        node
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, Function)
    ]
    return {
        text
        for function in functions
        for call in _calls(function, "reach")
        for text in _texts(call.args[0], function, functions)
    }


def _calls(function: Function, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            called = node.func
            found = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if found == name:
                yield node


def _texts(value: ast.expr, within: Function, functions: list[Function]) -> set[str]:
    """Every text that an expression can be; AssertionError where that cannot be told."""
    if isinstance(value, ast.Constant):
        return {str(value.value)}
    if isinstance(value, ast.FormattedValue):
        return _texts(value.value, within, functions)
    if isinstance(value, ast.JoinedStr):
        made = {""}
        for part in value.values:
            made = {begun + text for begun in made for text in _texts(part, within, functions)}
        return made
    assert isinstance(value, ast.Name), f"{within.name}: {ast.unparse(value)} names a place"
    parameters = [argument.arg for argument in within.args.args if argument.arg != "self"]
    place = parameters.index(value.id)
    return {
        text
        for function in functions
        for call in _calls(function, within.name)
        for text in _texts(_argument(call, place, value.id), function, functions)
    }


def _argument(call: ast.Call, place: int, name: str) -> ast.expr:
    named = [keyword.value for keyword in call.keywords if keyword.arg == name]
    return named[0] if named else call.args[place]


def test_every_place_of_the_applier_is_in_the_crash_matrix() -> None:
    """A new statement with its places, or a place renamed, is noticed here."""
    package = Path(cdc_migrator.apply.__file__).parent
    sources = [path.read_text() for path in sorted(package.glob("*.py"))]
    assert sorted(PLACES) == sorted(names_reached(sources))


def test_every_statement_that_writes_is_run_through_its_places() -> None:
    """Rows are changed by `_run`, which has the places, and by these few others."""
    source = (Path(cdc_migrator.apply.__file__).parent / "merge.py").read_text()
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, Function)]
    bare = {function.name for function in functions if list(_calls(function, "execute"))}
    # Temporary tables and settings, and what only reads; TRUNCATE has its own places.
    reads = {"places", "key_texts"}
    assert bare == {"make", "_create", "truncate", "_allow_scans", "_run"} | reads


def test_places_are_found_through_parameters() -> None:
    """The search itself: a place made of a parameter is every caller's."""
    source = """
def run(place): reach(f"a.{place}.before")
def expect(what, place): run(place)
def one(): reach("b"); expect(1, "x"); expect(2, place="y"); run("z")
"""
    assert names_reached([source]) == {"b", "a.x.before", "a.y.before", "a.z.before"}
