"""A verb that is forked is a process like one that is started: arguments, files, end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

from tests.support.typed import CLI
from tests.support.warm import Warm, warm

Said = tuple[int, str, str]
VERBS = (
    ("--version",),
    ("status", "--config", "nowhere.yaml"),
    ("status", "--config", "nowhere.yaml", "-o", "json"),
    ("no-such-verb",),
)


@pytest.fixture
def forked(tmp_path: Path) -> Callable[..., Said]:
    def said(*arguments: str, env: Mapping[str, str] = os.environ) -> Said:
        files = tmp_path / "out", tmp_path / "err"
        with files[0].open("wb") as out, files[1].open("wb") as err:
            process = _ready().start(arguments, out.fileno(), err.fileno(), env, Path.cwd(), False)
            code = process.wait(60)
        return code, files[0].read_text(), files[1].read_text()

    return said


def _ready() -> Warm:
    if (ready := warm()) is None:
        pytest.skip("processes cannot be watched by a file here")
    return ready


@pytest.mark.parametrize("arguments", VERBS, ids=" ".join)
def test_it_says_and_ends_as_one_that_is_started(
    forked: Callable[..., Said], arguments: tuple[str, ...]
) -> None:
    """Exit code, output and errors, apart."""
    done = subprocess.run([*CLI, *arguments], capture_output=True, text=True, check=False)
    assert forked(*arguments) == (done.returncode, done.stdout, done.stderr)


def test_it_has_the_environment_and_the_directory_of_now(
    forked: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the moment it is asked for, not those of the process that it is forked from."""
    (tmp_path / "migration.yaml").write_text("name: here\n")
    monkeypatch.chdir(tmp_path)
    _, _, told = forked("status", env={**os.environ, "CDC_MIGRATOR_NO_SUCH": "1"})
    assert "source: is missing" in told
    assert "CDC_MIGRATOR_NO_SUCH: names no setting" in told


def test_a_signal_ends_it_and_is_told(tmp_path: Path) -> None:
    """While it waits for a server that does not answer; nothing of it stays."""
    with socket.create_server(("127.0.0.1", 0)) as silent, (tmp_path / "out").open("wb") as out:
        dsn = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/a"
        config = tmp_path / "migration.yaml"
        config.write_text(f"name: endless\nsource: {{dsn: {dsn}}}\ntarget: {{dsn: {dsn}}}\n")
        words = ("--config", str(config), "status")
        process = _ready().start(words, out.fileno(), out.fileno(), os.environ, tmp_path, True)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        assert process.poll() is None
        assert os.getsid(process.pid) == process.pid
        process.kill()
        assert process.wait(20) == process.returncode == -signal.SIGKILL
    assert not psutil.pid_exists(process.pid)
    process.kill()
