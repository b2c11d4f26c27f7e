"""--throttle says the settings of the load in one flag, and refuses what it cannot read."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from cdc_migrator.cli.context import Session, settings
from cdc_migrator.cli.main import app
from cdc_migrator.cli.throttle import hold_back, limits

ALL = {
    "max_rows_per_second": 50_000,
    "max_bytes_per_second": 20_000_000,
    "max_replica_lag": timedelta(seconds=5),
    "max_active_sessions": 8,
}


@pytest.mark.parametrize(
    "flags",
    [
        ["rows=50000,bytes=20MB,replica-lag=5,active-sessions=8"],
        ["rows=50000", "bytes=20MB", "replica-lag=5s", "active-sessions=8"],
        ["rows = 50000, bytes=20000000", "replica-lag=5000ms,active-sessions=8"],
    ],
)
def test_one_flag_or_several_say_the_same(flags: list[str]) -> None:
    """Commas and repetition mix; times and sizes are written as in the file."""
    assert limits(flags) == ALL


def test_none_lifts_a_limit_of_the_file() -> None:
    """Which is something else than not to speak of it."""
    assert limits(["rows=none,active-sessions=0"]) == {
        "max_rows_per_second": None,
        "max_active_sessions": 0,
    }


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("rows", "write LIMIT=VALUE with one of rows, bytes, replica-lag, active-sessions"),
        ("row=5", "write LIMIT=VALUE"),
        ("", "write LIMIT=VALUE"),
        ("rows=1,", "write LIMIT=VALUE"),
        ("rows=0", "rows must be a whole number, at least 1"),
        ("rows=-3", "rows must be a whole number"),
        ("rows=1.5", "rows must be a whole number"),
        ("active-sessions=many", "active-sessions must be a whole number, at least 0"),
        ("bytes=20Mb/s", "bytes must be bytes, or a number with KiB"),
        ("bytes=10", "bytes must be at least 1KiB"),
        ("replica-lag=soon", "replica-lag must be seconds, or a number with ms, s, m, h or d"),
        ("rows=1,bytes=1MB,rows=2", "rows comes twice"),
    ],
)
def test_what_cannot_be_read_is_told_by_its_name(flag: str, told: str) -> None:
    """With the form that it should have."""
    with pytest.raises(typer.BadParameter) as refused:
        limits([flag])
    assert told in str(refused.value)


def test_limits_win_over_the_file_and_over_set(tmp_path: Path) -> None:
    """What is not spoken of stays as it is there."""
    file = tmp_path / "migration.yaml"
    file.write_text(
        "name: shop\nsource: {dsn: postgresql://a@h/x}\ntarget: {dsn: postgresql://a@h/y}\n"
        "load: {max_rows_per_second: 7, max_bytes_per_second: 1MiB, max_active_sessions: 3}\n"
    )
    below = {"load": {"max_rows_per_second": 9}}
    ctx = typer.Context(get_command(app), obj=Session(file, overrides=below))
    hold_back(ctx, ["rows=50,replica-lag=2s", "active-sessions=none"])
    load = settings(ctx).load
    assert load.max_rows_per_second == 50
    assert load.max_bytes_per_second == 1 << 20
    assert load.max_replica_lag == timedelta(seconds=2)
    assert load.max_active_sessions is None


@pytest.mark.parametrize("verb", ["migrate", "backfill"])
def test_a_wrong_flag_is_a_usage_error_of_the_verb(verb: str) -> None:
    """Exit code 2, before the configuration is looked for."""
    ended = CliRunner().invoke(app, [verb, "--throttle", "speed=9"], env={"COLUMNS": "200"})
    assert ended.exit_code == 2
    assert "--throttle" in ended.output
    assert "active-sessions" in ended.output
