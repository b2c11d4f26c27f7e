"""A migration whose source changes its schema, for the tests of this directory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from cdc_migrator.demo.digest import compare, digest_both
from tests.support.live import LiveMigration, wait_for


class Changing(LiveMigration):
    """A migration whose source changes its schema."""

    def source_runs(self, *statements: str) -> None:
        """All in one transaction."""
        with psycopg.connect(self.source) as conn:
            for statement in statements:
                conn.execute(statement.encode())

    def target_runs(self, *statements: str) -> None:
        with psycopg.connect(self.target, autocommit=True) as conn:
            for statement in statements:
                conn.execute(statement.encode())

    def waits(self) -> dict[str, Any]:
        """What the stream waits for."""
        found: dict[str, Any] = wait_for("the stream waits", self.halted)
        assert found["code"] == "CDCM-SCHEMA-CHANGED", found
        return found

    def gate(self) -> dict[str, Any]:
        """What `schema-changes` says."""
        found: list[dict[str, Any]] = self.status()["ready"]["gates"]
        return next(one for one in found if one["name"] == "schema-changes")

    def by_hand(self, change: str, statement: str) -> None:
        """The stream stops at the change and says what the target needs; that is run there."""
        self.source_runs(change)
        found = self.waits()
        assert f"Run on the target: {statement}. " in found["remedy"], found
        self.target_runs(statement)
        wait_for("it goes on", lambda: not self.halted())

    def differing(self, tables: Sequence[str]) -> list[str]:
        self.drain()
        lines = compare(*digest_both(self.source, self.target, "shop"))
        assert {line.table for line in lines} >= set(tables)
        return [line.table for line in lines if not line.equal]
