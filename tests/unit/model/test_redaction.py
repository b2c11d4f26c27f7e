"""What is known to be secret is hidden however it is written; what is not stays as it is."""

from __future__ import annotations

import json
from urllib.parse import quote, quote_plus

import pytest

from cdc_migrator.model.redaction import Redactor

SECRET = 's3cret "it\'s" & a\\b'


@pytest.mark.parametrize(
    "text",
    [
        f"it is {SECRET} indeed",
        json.dumps({"value": SECRET}),
        "postgresql://u@h/?x=" + quote(SECRET, safe=""),
        "x=" + quote_plus(SECRET),
        "PASSWORD '" + SECRET.replace("'", "''") + "'",
        "value='" + SECRET.replace("\\", "\\\\").replace("'", "\\'") + "'",
    ],
)
def test_a_known_secret_is_hidden_however_it_is_written(text: str) -> None:
    """In clear, as JSON, in a URL, in SQL and in a libpq connection string."""
    hidden = Redactor([SECRET])(text)
    assert "s3cret" not in hidden
    assert "***" in hidden


def test_the_longer_of_two_secrets_is_hidden_whole() -> None:
    """Where one begins with the other."""
    assert Redactor(["hunter", "hunter22"])("hunter22 hunter") == "*** ***"


@pytest.mark.parametrize("secret", [None, "", "abc"])
def test_what_cannot_be_told_from_a_word_is_left_to_its_form(secret: str | None) -> None:
    """A password of three characters would take words apart; an assignment of it is hidden."""
    hide = Redactor([secret])
    assert hide("abcdef") == "abcdef"
    assert hide("password=abc") == "password=***"
