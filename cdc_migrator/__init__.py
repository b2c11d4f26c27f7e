"""Move a live PostgreSQL database to another PostgreSQL without stopping the application."""

from __future__ import annotations

__version__: str


def __getattr__(name: str) -> str:
    # Reading the installed metadata takes a third of the time that `--help` may take.
    if name == "__version__":
        from importlib.metadata import version

        return version("cdc-migrator")
    raise AttributeError(name)
