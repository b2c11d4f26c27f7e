"""docs/errors.md lists every code that the package can show, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from cdc_migrator import errors

ROOT = Path(__file__).parents[3]
CODE = re.compile(r"[\"'](CDCM-[A-Z0-9]+(?:-[A-Z0-9]+)*)[\"']")
CLASSES = {
    name: kind.exit_code
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.MigratorError)
}


def sources() -> Iterator[str]:
    for path in (ROOT / "cdc_migrator").rglob("*.py"):
        yield path.read_text(encoding="utf-8")


def rows() -> list[list[str]]:
    """The cells of each code's row."""
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| `CDCM-")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_code_is_documented_and_every_documented_code_exists() -> None:
    """Codes are string literals in the package, and the first column of the page."""
    used = {code for text in sources() for code in CODE.findall(text)}
    documented = [row[0].strip("`") for row in rows()]
    assert sorted(used - set(documented)) == [], "not in docs/errors.md"
    assert sorted(set(documented) - used) == [], "in docs/errors.md only"
    assert documented == sorted(set(documented)), "in alphabetical order, each once"


def test_each_row_has_meaning_remedy_and_exit_code() -> None:
    """Four cells, none empty."""
    for row in rows():
        assert len(row) == 4, row
        assert all(row), row
        assert set(row[3].split(", ")) <= {"0", "1", "2", "3"}, row


def test_the_exit_codes_are_those_of_the_code() -> None:
    """Wherever an error is made with its code written out."""
    documented = {row[0].strip("`"): {int(code) for code in row[3].split(", ")} for row in rows()}
    found = 0
    for text in sources():
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name, first = getattr(node.func, "id", None), node.args[0]
            if name in CLASSES and isinstance(first, ast.Constant):
                if not str(first.value).startswith("CDCM-"):
                    continue
                found += 1
                assert CLASSES[name] in documented[str(first.value)], first.value
    assert found > 50
