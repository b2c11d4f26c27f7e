"""How the stack tells a person what it does. Speaks on stderr only; stdout belongs to results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn


class Talk(Protocol):
    """Called by the steps of `stack up`; neither method blocks."""

    def say(self, text: str) -> None:
        """One finished or begun step, as a sentence fragment."""

    def downloading(self, files: int, size: int) -> AbstractContextManager[Callable[[int], None]]:
        """A download of ``size`` bytes; the yielded callable takes bytes as they arrive, from
        any thread."""


class Silent:
    """Says nothing: for callers that are programs."""

    def say(self, text: str) -> None:
        del text

    @contextmanager
    def downloading(self, files: int, size: int) -> Iterator[Callable[[int], None]]:
        del files, size
        yield lambda _arrived: None


class OnStderr:
    """Lines on stderr, with a bar while downloading when stderr is a terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    @contextmanager
    def downloading(self, files: int, size: int) -> Iterator[Callable[[int], None]]:
        if not self._console.is_terminal:
            self.say(f"fetching {files} jars, {size / 1e6:.0f} MB")
            yield lambda _arrived: None
            return
        columns = (
            TextColumn("fetching jars"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
        )
        with Progress(*columns, console=self._console) as bar:
            task = bar.add_task("jars", total=size)
            yield lambda arrived: bar.advance(task, arrived)
