"""Fixtures for all tests, and the `stack` mark for those that need the session's stack."""

from __future__ import annotations

import pytest

pytest_plugins = ["tests.support.stack", "tests.support.secure_stack", "tests.support.warm"]

NEED_THE_STACK = {"stack", "source_db", "target_db", "secure_stack"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if NEED_THE_STACK & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.stack)
