"""Whatever is killed in the middle of its work: the target ends equal, or the stream halts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.resume import Resume
from tests.support.live import LiveMigration

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]
ROUNDS = 2
# The demo kills what is not here; `make prove-resume` everything, and often.
STRUCK = (
    pytest.param("walsender", "walsender"),
    pytest.param("broker", "broker", marks=pytest.mark.long),
)


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


@pytest.mark.usefixtures("local_stack")
@pytest.mark.parametrize(("resume", "fault"), STRUCK, indirect=["resume"])
def test_a_killed_part_resumes_and_both_sides_end_equal(resume: Resume, fault: str) -> None:
    """Kills in the middle of large transactions lose and double nothing."""
    for seed in range(ROUNDS):
        done = resume.round(fault, seed)
        print(done)
        assert done.allowed
        assert done.working_ms < 1000
        if done.hit or done.outcome != "equal":
            break
    assert done.hit
