"""Print: data on stdout as a table, JSON or YAML; talk on stderr; colour only where it is seen.

A document is a plain mapping; `schema_version` is put first if it is not there. On failure stdout
stays empty, and the error goes to stderr in the form that was asked for (JSON for -o yaml, too).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from cdc_migrator.cli.context import Format, Session, session

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from cdc_migrator.errors import MigratorError

SCHEMA_VERSION = 1
_WIDE = 160


def console(*, stderr: bool = False) -> Console:
    """A rich console that obeys NO_COLOR and TERM=dumb and does not squeeze tables in a pipe."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None
    if not stream.isatty() and not os.environ.get("COLUMNS", "").isdigit():
        width = _WIDE
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


class Printer:
    """What a verb prints with.

    Attributes:
        format: the form of the data on stdout.
    """

    def __init__(self, format: Format = Format.TABLE) -> None:
        self.format = format

    @property
    def for_people(self) -> bool:
        """Whether a person reads stdout, so that tables and hints are wanted."""
        return self.format is Format.TABLE

    def data(
        self, document: Mapping[str, Any], table: Callable[[], RenderableType] | None = None
    ) -> None:
        """Print the document; `table` makes its form for people, and is called only for them."""
        if self.format is Format.TABLE and table is not None:
            console().print(table())
            return
        whole = {"schema_version": SCHEMA_VERSION, **document}
        text = to_yaml(whole) if self.format is Format.YAML else to_json(whole, indent=True)
        sys.stdout.write(text)
        sys.stdout.flush()

    def line(self, document: Mapping[str, Any]) -> None:
        """One document of a series: a JSON line, or a YAML document with its separator."""
        whole = {"schema_version": SCHEMA_VERSION, **document}
        yaml = self.format is Format.YAML
        sys.stdout.write("---\n" + to_yaml(whole) if yaml else to_json(whole))
        sys.stdout.flush()

    def say(self, text: str, style: str | None = None) -> None:
        """Talk to the person: stderr, no markup interpreted."""
        console(stderr=True).print(text, style=style, markup=False, soft_wrap=True)

    def next(self, command: str, why: str = "") -> None:
        """Say which command to type next; people only."""
        if self.for_people:
            self.say(f"next: {command}" + (f"   ({why})" if why else ""), style="bold")


def printer(ctx: typer.Context) -> Printer:
    """The printer for this command line's ``-o`` or ``--json``."""
    return Printer(session(ctx).format)


def to_json(document: Any, *, indent: bool = False) -> str:
    """JSON with a final newline; times in ISO 8601, anything else unknown as text."""
    import orjson

    option = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
    if indent:
        option |= orjson.OPT_INDENT_2
    return orjson.dumps(document, default=str, option=option).decode()


def to_yaml(document: Any) -> str:
    """YAML in the same shape as the JSON, keys in their order."""
    import orjson
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes the line breaks that PyYAML would fold away in a plain text."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = '"' if set(value) & set("\x85\u2028\u2029") else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style)

    Dumper.add_representer(str, text)
    plain = orjson.loads(to_json(document))
    return yaml.dump(plain, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)


def report_error(error: MigratorError, current: Session) -> None:
    """Tell a coded error on stderr: two lines for people, one JSON document for programs."""
    if current.format is Format.TABLE:
        out = console(stderr=True)
        out.print(f"error {error.code}: {error.cause}", style="red", markup=False, soft_wrap=True)
        out.print(f"remedy: {error.remedy}", markup=False, soft_wrap=True)
        return
    document = {"schema_version": SCHEMA_VERSION, "error": error.as_dict()}
    sys.stderr.write(to_json(document))
    sys.stderr.flush()
