"""Set logging up, once, at the entry point: structlog and the standard library in one stream.

The service logs to stdout, as JSON lines unless a terminal reads them; other commands log to
stderr, only warnings unless -v. The last processor takes passwords out of whatever came through;
it is the safety net, not the rule: nobody logs one in the first place.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import orjson
import structlog

from cdc_migrator.model.redaction import HIDDEN, redact
from cdc_migrator.model.traces import chain

_SENSITIVE_KEY = re.compile(r"(?i)password|passwd|secret|token|jaas")
_NOISY = ("httpx", "httpcore", "urllib3", "asyncio")


def _trace(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """An exception as its chain of frames: its text may quote a row."""
    found = event.pop("exc_info", None)
    error = found[1] if isinstance(found, tuple) else found
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["exception"] = chain(error)
    return event


def _redact_event(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if not key.startswith("_"):
            event[key] = HIDDEN if _SENSITIVE_KEY.search(key) else _redact_value(value)
    return event


def _redact_value(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {
            key: HIDDEN if _SENSITIVE_KEY.search(str(key)) else _redact_value(inner)
            for key, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_redact_value(inner) for inner in value]
    return value


def _json(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> str:
    return orjson.dumps(dict(event), default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def configure(
    *, service: bool = False, verbose: bool = False, stream: TextIO | None = None
) -> None:
    """Send all logging to one stream; calling again replaces what was set up before.

    Args:
        service: the long-running form: stdout, and informational events too.
        verbose: debugging events too (for a command: informational ones).
        stream: another place than stdout or stderr.
    """
    out = stream or (sys.stdout if service else sys.stderr)
    if service:
        level = logging.DEBUG if verbose else logging.INFO
    else:
        level = logging.INFO if verbose else logging.WARNING
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[Any]
    if out.isatty():
        renderer = [structlog.dev.ConsoleRenderer(colors=_colours())]
    else:
        renderer = [structlog.processors.EventRenamer("message", "event_"), _json]
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _trace,
                _redact_event,
                *renderer,
            ],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    # It warns of each lost session's transaction that cannot be rolled back any more.
    logging.getLogger("psycopg").setLevel(logging.WARNING if verbose else logging.ERROR)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _colours() -> bool:
    from cdc_migrator.cli.output import console

    return console().color_system is not None and not console().no_color
