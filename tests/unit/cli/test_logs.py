"""One stream of log lines, for machines and without secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from cdc_migrator.cli import logs
from cdc_migrator.model.redaction import redact


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """The lines that the service would print; logging is as before afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    out = io.StringIO()
    logs.configure(service=True, stream=out)
    yield out
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_both_kinds_of_logger_print_the_same_shape(stream: io.StringIO) -> None:
    """structlog's and the standard library's, with time, level, logger, message and fields."""
    structlog.get_logger("a").info("batch-applied", rows=3)
    logging.getLogger("b").warning("slow %s", "query", extra={"rows": 4})
    first, second = lines(stream)
    assert (first["message"], first["level"], first["logger"], first["rows"]) == (
        "batch-applied",
        "info",
        "a",
        3,
    )
    assert (second["message"], second["level"], second["rows"]) == ("slow query", "warning", 4)
    assert {"timestamp"} <= set(first) & set(second)


def test_an_exception_stays_in_its_line(stream: io.StringIO) -> None:
    """A log collector sees one record."""
    try:
        raise KeyError("x")
    except KeyError:
        structlog.get_logger("a").exception("failed")
    (line,) = lines(stream)
    assert "KeyError" in str(line["exception"])


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://app:hunter2@db/shop",
        "connection to host=db password=hunter2 user=app failed",
        "password='hunter2 with \\' blanks'",
        '{"password": "hunter2"}',
        "sasl.password=hunter2",
        "ssl.key.password: hunter2",
        "https://u:hunter2@registry/path",
    ],
)
def test_passwords_are_taken_out(stream: io.StringIO, text: str) -> None:
    """Of messages, fields, nested fields and exceptions."""
    log = structlog.get_logger("a")
    log.info(text, field=text, nested={"list": [text]})
    log.info("configured", password="hunter2", settings={"sasl.password": "hunter2"})
    logging.getLogger("b").error("it said %s", text)
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("failed")
    assert "hunter2" not in stream.getvalue()
    assert len(lines(stream)) == 4


@pytest.mark.parametrize(
    "text", ["applied 3 rows to shop.tokens", "at 0/1A2B3C", "https://host:8083/connectors"]
)
def test_other_text_is_left_alone(text: str) -> None:
    """The safety net does not eat what it need not."""
    assert redact(text) == text


def test_a_command_logs_only_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    """To stderr; stdout is for data."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        logs.configure()
        logging.getLogger("a").info("quiet")
        logging.getLogger("a").warning("heard")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [json.loads(line)["message"] for line in printed.err.splitlines()] == ["heard"]
