"""A directory to work in, and an environment without our variables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the test; `migration.yaml` goes there."""
    for variable in [name for name in os.environ if name.startswith("CDC_MIGRATOR_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    return tmp_path
