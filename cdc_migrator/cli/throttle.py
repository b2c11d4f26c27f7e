"""`--throttle`: what the load may cost, in place of the settings `load.max_…`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Annotated

import typer

from cdc_migrator.cli.context import session
from cdc_migrator.config.values import parse_duration, parse_size

_OPTION = "--throttle"

ThrottleFlag = Annotated[
    list[str] | None,
    typer.Option(
        _OPTION,
        metavar="LIMIT=VALUE,…",
        help="Hold the load back: rows=N and bytes=SIZE a second; pause it while a standby of the "
        "source is more than replica-lag=TIME behind, or more than active-sessions=N of others "
        "are at work there. VALUE none lifts a limit. May be repeated; wins over load.max_….",
    ),
]


def _count(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise ValueError(f"must be a whole number, at least {least}")
        return int(text)

    return parse


def _size(text: str) -> int:
    size = parse_size(text)
    if size < 1024:
        raise ValueError("must be at least 1KiB")
    return size


_LIMITS: dict[str, tuple[str, Callable[[str], int | timedelta]]] = {
    "rows": ("max_rows_per_second", _count(1)),
    "bytes": ("max_bytes_per_second", _size),
    "replica-lag": ("max_replica_lag", parse_duration),
    "active-sessions": ("max_active_sessions", _count(0)),
}


def limits(flags: Sequence[str]) -> dict[str, int | timedelta | None]:
    """The settings of the section `load` that the flags stand for; None lifts a limit.

    Raises:
        typer.BadParameter: a limit is unknown, comes twice, or its value cannot be read.
    """
    found: dict[str, int | timedelta | None] = {}
    for part in (part.strip() for flag in flags for part in flag.split(",")):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals or name not in _LIMITS:
            known = ", ".join(_LIMITS)
            raise typer.BadParameter(
                f"{part!r}: write LIMIT=VALUE with one of {known}", param_hint=_OPTION
            )
        setting, parse = _LIMITS[name]
        if setting in found:
            raise typer.BadParameter(f"{name} comes twice", param_hint=_OPTION)
        try:
            found[setting] = None if value == "none" else parse(value)
        except ValueError as error:
            raise typer.BadParameter(f"{name} {error}", param_hint=_OPTION) from None
    return found


def hold_back(ctx: typer.Context, flags: Sequence[str] | None) -> None:
    """Put the flags over the settings that this command line leads to. Raises as `limits`."""
    if flags:
        session(ctx).overrides.setdefault("load", {}).update(limits(flags))
