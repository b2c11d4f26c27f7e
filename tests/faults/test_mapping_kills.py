"""A mapped migration that is killed goes on as if nothing had happened.

`make prove-mapping` has every place and many migrations.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdc_migrator.stack.local import StackInfo
from tests.faults import mapped_shop
from tests.faults.mapping_kills import MappedLife
from tests.support.live import LiveMigration

pytestmark = [pytest.mark.stack, pytest.mark.long, pytest.mark.timeout(400)]


@pytest.fixture
def live(stack: StackInfo, source_db: str, target_db: str, tmp_path: Path) -> Iterator[Any]:
    settings = mapped_shop.SETTINGS
    made = LiveMigration(tmp_path, "mapkill", source_db, target_db, stack, settings)
    yield made
    made.close()


def test_a_load_and_a_stream_are_killed(live: LiveMigration) -> None:
    """Inside a part and at its edge, and at statements of the apply transaction, under writers."""
    life = MappedLife(live, live.stack.state_dir, 0)
    load = ["load chunk.copied", "load chunk.emptied"]
    stream = ["apply upsert.after", "apply insert.after", "apply commit.before", "run"]
    life.run(load, stream, time.monotonic() + 300)
    assert set(load) <= set(life.struck)
    assert life.struck[-1] == "run"
