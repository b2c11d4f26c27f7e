"""This installation itself."""

from __future__ import annotations

from cdc_migrator.capture.findings import Finding, warn


def native(built: bool) -> list[Finding]:
    """`built`: the library in C is there."""
    if built:
        return []
    return [
        warn(
            "CDCM-NATIVE-MISSING",
            "cdc-migrator",
            "the C library that reads and folds the stream was not built here, or from other "
            "files than these: `run` catches up at about half of its speed",
            "Install a C compiler (or the wheel `ziglang`) and set up again (`make setup`, or "
            "`pip install` of the package).",
        )
    ]
