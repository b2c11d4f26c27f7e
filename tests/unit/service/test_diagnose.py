"""A bundle is made whatever fails, and nothing that is secret is in it."""

from __future__ import annotations

import io
import tarfile
from datetime import UTC, datetime

from cdc_migrator.errors import Failed
from cdc_migrator.model.redaction import Redactor
from cdc_migrator.service.diagnose import Missing, gather


def fails() -> str:
    raise Failed("CDCM-DB-LOST", "gone, and hunter22 with it", "Repeat.")


def breaks() -> str:
    raise KeyError("hunter22")


def test_what_cannot_be_had_is_listed_and_keeps_nothing_else_away() -> None:
    """A coded error with its cause, another one with its kind only."""
    parts = [("a", fails), ("b", breaks), ("c", lambda: "it is hunter22")]
    bundle = gather(parts, Redactor(["hunter22"]))
    assert bundle.texts == {"c": "it is ***"}
    assert bundle.missing == (
        Missing("a", "CDCM-DB-LOST", "gone, and *** with it"),
        Missing("b", "CDCM-INTERNAL", "an unexpected KeyError"),
    )


def test_the_archive_holds_the_texts_below_one_directory() -> None:
    """So that unpacking does not litter; and for the owner alone."""
    bundle = gather([("logs/run.log", lambda: "zażółć")], Redactor([]))
    packed = bundle.archive("top", datetime(2026, 1, 2, tzinfo=UTC))
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        (entry,) = tar.getmembers()
        assert (entry.name, entry.mode) == ("top/logs/run.log", 0o600)
        content = tar.extractfile(entry)
        assert content is not None
        assert content.read().decode() == "zażółć"
