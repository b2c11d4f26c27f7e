"""Put together what one needs to help from afar: a bundle of texts without secrets and rows.

A part that cannot be had is told in the bundle's list and keeps no other from being there.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from cdc_migrator.errors import MigratorError
from cdc_migrator.model.redaction import Redactor

# What makes a part's text.
Make = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Missing:
    """A part that could not be had, and why."""

    part: str
    code: str
    cause: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """The parts' texts by file name, secrets hidden."""

    texts: Mapping[str, str]
    missing: tuple[Missing, ...]

    def archive(self, top: str, at: datetime) -> bytes:
        """A gzipped tar archive of them, below a directory `top`; nobody else may read them."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for name, text in self.texts.items():
                content = text.encode()
                entry = tarfile.TarInfo(f"{top}/{name}")
                entry.size, entry.mode, entry.mtime = len(content), 0o600, at.timestamp()
                tar.addfile(entry, io.BytesIO(content))
        return packed.getvalue()


def gather(parts: Iterable[tuple[str, Make]], hide: Redactor) -> Bundle:
    """Make every part; what fails is missing, with its code, or the kind of an unknown error."""
    texts: dict[str, str] = {}
    missing: list[Missing] = []
    for name, make in parts:
        try:
            texts[name] = hide(make())
        except MigratorError as error:
            missing.append(Missing(name, error.code, hide(error.cause)))
        except Exception as error:
            # Its text may hold anything; that the bundle is made counts more than why this was not.
            missing.append(Missing(name, "CDCM-INTERNAL", f"an unexpected {type(error).__name__}"))
    return Bundle(texts, tuple(missing))
