"""What every verb shares: the options before or after the verb, and the settings they lead to.

One `Session` a process, made by `main` and carried by typer's context; nothing is global.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from cdc_migrator.config.settings import Settings


class Format(StrEnum):
    """How data is printed on stdout."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


@dataclass(slots=True)
class Session:
    """The options that hold for any verb, as far as they were read from the command line."""

    config: Path | None = None
    verbose: bool = False
    format: Format = Format.TABLE
    overrides: dict[str, Any] = field(default_factory=dict)


def session(ctx: typer.Context) -> Session:
    """The session of this command line; made on the spot where a verb runs on its own."""
    found = ctx.find_object(Session)
    if found is None:
        found = Session()
        ctx.find_root().obj = found
        ctx.obj = found
    return found


def settings(ctx: typer.Context, **overrides: Any) -> Settings:
    """The settings in force, with a verb's own flags (nested; None is "not given") on top.

    Raises:
        ConfigurationError: as `config.loader.load`.
    """
    from cdc_migrator.config.loader import load

    shared = session(ctx)
    found = load(shared.config, _merge(shared.overrides, overrides))
    if found.file is not None and any(one.hook for one in found.mapping):
        from cdc_migrator.hook.calling import look_in

        look_in(found.file.absolute().parent)
    return found


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, dict):
            inner = merged.get(key)
            merged[key] = _merge(inner if isinstance(inner, dict) else {}, value)
            if not merged[key]:
                del merged[key]
        elif value is not None:
            merged[key] = value
    return merged


def set_override(overrides: dict[str, Any], assignment: str) -> None:
    """Take ``section.key=value`` of ``--set`` into nested overrides; ``null`` is None.

    Raises:
        typer.BadParameter: it is not of that form.
    """
    path, equals, value = assignment.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise typer.BadParameter("write it as section.key=value")
    inside = overrides
    for key in keys[:-1]:
        inside = inside.setdefault(key, {})
        if not isinstance(inside, dict):
            raise typer.BadParameter(f"{path} lies inside a plain value")
    inside[keys[-1]] = None if value == "null" else value
