"""Whatever is killed in the middle of its work: the target ends equal, or the stream halts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.resume import FAULTS, Resume, Round
from tests.support.live import LiveMigration

pytestmark = [pytest.mark.stack, pytest.mark.strikes, pytest.mark.slow, pytest.mark.timeout(600)]
ROUNDS = 2


@pytest.fixture
def resume(
    stack: Any, source_db: str, target_db: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Resume]:
    migration = LiveMigration(
        tmp_path, f"resume_{request.param}", source_db, target_db, stack, {"tables": SHOP}
    )
    resume = Resume(migration, stack.state_dir)
    try:
        resume.begin()
        yield resume
    finally:
        migration.close()


SHOP = {"include": ["shop.*"]}


@pytest.mark.parametrize(
    ("resume", "fault"), [(fault, fault) for fault in FAULTS], indirect=["resume"]
)
def test_a_killed_part_resumes_and_both_sides_end_equal(resume: Resume, fault: str) -> None:
    """Kills in the middle of large transactions lose and double nothing."""
    rounds: list[Round] = []
    for seed in range(ROUNDS):
        rounds.append(resume.round(fault, seed))
        print(rounds[-1])
        if rounds[-1].outcome != "equal":
            break

    assert all(r.allowed for r in rounds)
    assert all(r.working_ms < 1000 for r in rounds)
    assert sum(r.hit for r in rounds) * 2 >= len(rounds)
