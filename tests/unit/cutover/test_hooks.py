"""Hooks in their order, each with its retries; commands and requests are real."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cdc_migrator.cutover.hooks.base import HookFailed, Moment, digest, run_all
from cdc_migrator.errors import Failed
from tests.support.hooks import Cutover, configured

SOURCE, TARGET = "host=db1 dbname=shop password=hidden1", "host=db2 port=6000 dbname=new"


def cutover(*hooks: dict[str, object]) -> Cutover:
    return Cutover(SOURCE, TARGET, hooks)


class Noting:
    """A hook that notes when it is run and fails a number of times."""

    def __init__(self, name: str, notes: list[str], failures: int = 0, again: bool = True) -> None:
        self.name, self.retries = name, 2
        self._notes, self._failures, self._again = notes, failures, again

    def open(self) -> None: ...

    def close(self) -> None: ...

    def run(self, moment: Moment, context: object) -> str | None:
        self._notes.append(f"{self.name}-{moment}")
        if self._failures:
            self._failures -= 1
            raise HookFailed("not now", self._again)
        return None if moment is Moment.HOLD else "done"


def test_hooks_run_in_their_order_and_are_undone_in_the_opposite_one() -> None:
    """Who has nothing to do at a moment is not told of."""
    notes: list[str] = []
    hooks = [Noting("a", notes), Noting("b", notes, failures=1)]
    context = cutover().context()
    assert run_all(hooks, Moment.HOLD, context) == []
    done = run_all(hooks, Moment.SWITCH, context)
    run_all(hooks, Moment.UNDO, context)
    assert notes == ["a-hold", "b-hold", "b-hold", "a-switch", "b-switch", "b-undo", "a-undo"]
    assert [(ran.name, ran.tries, ran.detail) for ran in done] == [
        ("a", 1, "done"),
        ("b", 1, "done"),
    ]


@pytest.mark.parametrize(("again", "tries"), [(True, 3), (False, 1)])
def test_what_fails_ends_the_moment(again: bool, tries: int) -> None:
    """After its retries, if another try may help; what comes behind is not begun."""
    notes: list[str] = []
    hooks = [Noting("a", notes, 9, again), Noting("b", notes)]
    with pytest.raises(Failed, match=r"'a' failed at switch.*not now") as caught:
        run_all(hooks, Moment.SWITCH, cutover().context())
    assert (caught.value.code, notes) == ("CDCM-HOOK-FAILED", ["a-switch"] * tries)


def test_whatever_can_be_undone_is() -> None:
    """Those that fail are told together, at the end."""
    notes: list[str] = []
    hooks = [Noting("a", notes, 9), Noting("b", notes), Noting("c", notes, 9, again=False)]
    with pytest.raises(Failed, match=r"'c' failed.*'a' failed"):
        run_all(hooks, Moment.UNDO, cutover().context())
    assert notes == ["c-undo", "b-undo", *["a-undo"] * 3]


def test_nothing_is_tried_again_when_it_is_to_stop() -> None:
    """The try under way is finished."""
    notes: list[str] = []
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(Failed):
        run_all([Noting("a", notes, 1)], Moment.SWITCH, cutover().context(), stopping)
    assert notes == ["a-switch"]


def script(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return [sys.executable, str(path)]


def test_a_command_is_told_what_it_needs_and_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its environment; its words go into the journal, the end of them."""
    for variable in [name for name in os.environ if name.startswith("CDC_MIGRATOR_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("CDC_MIGRATOR_SOURCE__PASSWORD", "hidden2")
    show = "import os; print('x' * 5000, *sorted(f'{k}={v}' for k, v in os.environ.items()"
    argv = script(tmp_path / "show", show + " if k.startswith('CDC_MIGRATOR')))")
    (ran,) = cutover({"kind": "command", "argv": argv}).run(Moment.SWITCH)
    assert ran.name == "command"
    assert len(ran.detail) < 500
    assert ran.detail.split("x ")[1].split() == [
        "CDC_MIGRATOR_ATTEMPT=7",
        "CDC_MIGRATOR_MIGRATION=m",
        "CDC_MIGRATOR_MOMENT=switch",
        "CDC_MIGRATOR_SIDE=target",
        "CDC_MIGRATOR_SOURCE_DBNAME=shop",
        "CDC_MIGRATOR_SOURCE_HOST=db1",
        "CDC_MIGRATOR_SOURCE_PORT=",
        "CDC_MIGRATOR_TARGET_DBNAME=new",
        "CDC_MIGRATOR_TARGET_HOST=db2",
        "CDC_MIGRATOR_TARGET_PORT=6000",
    ]


def test_a_command_runs_at_its_moments_and_is_looked_for_before(tmp_path: Path) -> None:
    """By default when applications are sent somewhere; twice is the command's own affair."""
    ran_at = tmp_path / "ran"
    text = f"import os; open({str(ran_at)!r}, 'a').write(os.environ['CDC_MIGRATOR_MOMENT'] + ' ')"
    argv = script(tmp_path / "note", text)
    usual, all_of_them = (
        cutover({"kind": "command", "argv": argv}),
        cutover({"kind": "command", "argv": argv, "moments": ["check", "hold"]}),
    )
    for moment in (*Moment, Moment.SWITCH):
        usual.run(moment)
    assert ran_at.read_text().split() == ["switch", "undo", "switch"]
    for moment in Moment:
        all_of_them.run(moment)
    assert ran_at.read_text().split()[3:] == ["check", "hold"]
    with pytest.raises(Failed, match="there is no program /nowhere"):
        cutover({"kind": "command", "argv": ["/nowhere"]}).run(Moment.CHECK)


def test_a_command_that_fails_says_how(tmp_path: Path) -> None:
    """Its exit code and the end of what it said."""
    argv = script(tmp_path / "fail", "import sys; sys.exit('no such\\npool')")
    with pytest.raises(Failed, match=r"2 times.*exit code 1: no such pool"):
        cutover({"kind": "command", "argv": argv, "retries": 1}).run(Moment.SWITCH)


def test_a_command_is_killed_at_its_limit_with_all_it_started(tmp_path: Path) -> None:
    """The whole group: nothing of it goes on behind our back."""
    note = tmp_path / "pid"
    argv = ["/bin/sh", "-c", f"sleep 60 & echo $! > {note}; wait"]
    began = time.monotonic()
    with pytest.raises(Failed, match=r"killed after 0\.3 s"):
        cutover({"kind": "command", "argv": argv, "timeout": 0.3, "retries": 0}).run(Moment.UNDO)
    assert time.monotonic() - began < 5
    child, deadline = int(note.read_text()), time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and "Z" not in _state(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_command_that_was_left_behind_is_begun_again(tmp_path: Path) -> None:
    """Whoever ran it was killed: the next run does it all."""
    note, gate = tmp_path / "began", tmp_path / "gate"
    wait = f"while [ ! -e {gate} ]; do sleep 0.05; done"
    run = cutover(
        {"kind": "command", "argv": ["/bin/sh", "-c", f"echo $$ >> {note}; {wait}"], "timeout": 20}
    )
    killed = run.begin(Moment.SWITCH)
    deadline = time.monotonic() + 20
    while not note.exists() or not note.read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    gate.touch()
    assert run.run(Moment.SWITCH)[0].tries == 1
    assert len(note.read_text().split()) == 2


class Receiver(BaseHTTPRequestHandler):
    """Notes what it is sent; answers as it is told to, or not at all."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        told: Told = self.server  # type: ignore[assignment]
        told.seen.append((dict(self.headers), json.loads(body)))
        status = told.answers.pop(0) if told.answers else 204
        if status == 0:
            told.released.wait(10)
            return
        self.send_response(status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


class Told(ThreadingHTTPServer):
    def __init__(self, *answers: int) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.answers = list(answers)
        self.seen: list[tuple[dict[str, str], dict[str, object]]] = []
        self.released = threading.Event()
        self.block_on_close = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/secret-path"


@contextmanager
def receiver(*answers: int) -> Iterator[Told]:
    with Told(*answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


def test_a_request_carries_the_same_key_until_it_is_answered(tmp_path: Path) -> None:
    """And another one at another moment; headers come from the settings and from files."""
    secret = tmp_path / "token"
    secret.write_text("Bearer hidden\n")
    secret.chmod(0o600)
    with receiver(503, 302) as server:
        hook = cutover(
            {
                "kind": "webhook",
                "url": server.url,
                "headers": {"X-Team": "shop"},
                "header_files": {"Authorization": str(secret)},
            }
        )
        (there,) = hook.run(Moment.CHECK)
        (ran,) = hook.run(Moment.SWITCH)
        hook.run(Moment.UNDO)
    assert there.detail.endswith("answered 501")
    assert (ran.tries, ran.detail) == (3, f"127.0.0.1:{server.server_port} answered 204")
    assert [headers["Idempotency-Key"] for headers, _ in server.seen] == [
        *["m-7-switch-target"] * 3,
        "m-7-undo-source",
    ]
    headers, body = server.seen[0]
    assert (headers["Authorization"], headers["X-Team"]) == ("Bearer hidden", "shop")
    assert body.pop("at")
    assert body == {"migration": "m", "moment": "switch", "side": "target", "attempt": 7}


def test_a_request_is_not_waited_for_beyond_its_limit() -> None:
    """A receiver that takes it and says nothing; and one that is not there. No path is told."""
    with receiver(0) as server:
        began = time.monotonic()
        hook = {"kind": "webhook", "url": server.url, "timeout": 0.3, "retries": 0}
        with pytest.raises(Failed, match=r"did not answer within 0\.3 s") as caught:
            cutover(hook).run(Moment.SWITCH)
        assert time.monotonic() - began < 2
    assert "secret" not in str(caught.value)
    with pytest.raises(Failed, match="cannot be reached") as caught:
        cutover({**hook, "url": "http://127.0.0.1:1/secret"}).run(Moment.CHECK)
    assert "secret" not in str(caught.value)


def test_the_digest_tells_settings_apart_and_knows_no_secret() -> None:
    """What was rehearsed is what is configured; a password that was changed is no other hook."""
    console = {"dsn": "host=b user=a password=x", "password": "y"}
    bouncer = {"kind": "pgbouncer", "console": console, "database": "shop", "config": "/a"}
    route = {"kind": "route"}
    same = digest(configured(bouncer, route))
    changed = {**bouncer, "console": {"dsn": "host=b user=a password=z"}}
    assert digest(configured(changed, route)) == digest(
        configured({**bouncer, "console": {"dsn": "host=b user=a"}}, route)
    )
    assert digest(configured(bouncer, route)) == same
    assert digest(configured(route, bouncer)) != same
    assert digest(configured({**bouncer, "database": "other"}, route)) != same
    for setting, one, other in (("timeout", 1, 2), ("name", "a", "b")):
        digests = {digest(configured({"kind": "route", setting: v})) for v in (one, other)}
        assert len(digests) == 2
    places = ("http://a/b", "http://a/c")
    assert len({digest(configured({"kind": "webhook", "url": url})) for url in places}) == 2
