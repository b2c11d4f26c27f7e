"""The supervisor, with small children of its own: order, restarts, giving up, trying again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from cdc_migrator.stack import ports, processes, records
from cdc_migrator.stack.layout import Layout
from cdc_migrator.stack.records import ChildRecord, ChildSpec, Plan, Running, SupervisorRecord

STAY = """
import signal, sys, time
def end(*_):
    print('{name} ends', time.time(), flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, end)
print('{name} lives', flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout(tmp_path)
    layout.rooms()
    yield layout
    record = records.read(layout.supervisor, SupervisorRecord)
    process = processes.alive(record.process) if record else None
    if process is not None:
        processes.stop(process, [(signal.SIGTERM, 10)])


def child(layout: Layout, name: str, code: str = STAY, stage: int = 0, **more: object) -> ChildSpec:
    return ChildSpec(
        name=name,
        command=(sys.executable, "-c", code.replace("{name}", name)),
        cwd=str(layout.root),
        log=str(layout.log(name)),
        port=1,
        environment={},
        stop_signals=((signal.SIGTERM, 10.0),),
        stop_stage=stage,
        **more,  # type: ignore[arg-type]
    )


def start(layout: Layout, *children: ChildSpec) -> None:
    records.write(layout.plan, Plan(children, Running("", 18, "", 17, False)))
    with layout.log("supervisor").open("ab") as log:
        subprocess.run(
            [sys.executable, "-m", "cdc_migrator.stack.supervisor", str(layout.root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=True,
        )


def supervisor(layout: Layout) -> psutil.Process:
    record = records.read(layout.supervisor, SupervisorRecord)
    assert record is not None
    process = processes.alive(record.process)
    assert process is not None
    return process


def recorded(layout: Layout, name: str) -> ChildRecord:
    record = records.read(layout.supervisor, SupervisorRecord)
    return record.children[name] if record else ChildRecord("waiting")


def eventually(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_child_is_restarted_and_its_death_recorded(layout: Layout) -> None:
    """SIGKILL is told as the cause, with the end of the log, and the next life has a new number."""
    start(layout, child(layout, "a"))
    eventually(lambda: "a lives" in read(layout, "a"))
    first = recorded(layout, "a").process
    assert first is not None
    psutil.Process(first.pid).kill()

    eventually(lambda: recorded(layout, "a").restarts == 1)
    eventually(lambda: recorded(layout, "a").state == "running")
    after = recorded(layout, "a")
    assert after.process is not None
    assert after.process.pid != first.pid
    assert [death.cause for death in after.deaths] == ["killed by SIGKILL"]
    assert after.deaths[0].log_tail == ("a lives",)


def test_children_stop_stage_by_stage(layout: Layout) -> None:
    """SIGTERM to the supervisor stops a later stage only when the earlier one has ended."""
    start(layout, child(layout, "late", stage=1), child(layout, "early", stage=0))
    eventually(lambda: all("lives" in read(layout, n) for n in ("late", "early")))
    processes.stop(supervisor(layout), [(signal.SIGTERM, 20)])

    assert {recorded(layout, n).state for n in ("late", "early")} == {"stopped"}
    early, late = (float(read(layout, n).split("ends ")[1].split()[0]) for n in ("early", "late"))
    assert early < late


def test_in_haste_only_who_leaves_something_is_waited_for(layout: Layout, tmp_path: Path) -> None:
    """SIGQUIT to the supervisor kills; what a child leaves at its end comes to where it is kept."""
    left, kept = tmp_path / "left", tmp_path / "cache" / "slow-1.jsa"
    leaving = STAY.replace("sys.exit()", f"open({str(left)!r}, 'w').write('x'); sys.exit()")
    start(
        layout,
        child(layout, "quick"),
        child(layout, "slow", leaving, leaves=(str(left), str(kept))),
    )
    eventually(lambda: all("lives" in read(layout, n) for n in ("quick", "slow")))
    processes.stop(supervisor(layout), [(signal.SIGQUIT, 20)])

    assert {recorded(layout, n).state for n in ("quick", "slow")} == {"stopped"}
    assert "ends" not in read(layout, "quick")
    assert "ends" in read(layout, "slow")
    assert kept.read_text() == "x"
    assert not left.exists()


def test_a_child_that_cannot_live_is_given_up_and_can_be_tried_again(layout: Layout) -> None:
    """After several short lives it stays dead, with its last words; SIGHUP tries it again."""
    cure = layout.root / "cured"
    code = f"import pathlib, sys\nif not pathlib.Path({str(cure)!r}).exists(): "
    code += "sys.exit('cannot find the cure')\n" + STAY
    start(layout, child(layout, "ill", code))
    eventually(lambda: recorded(layout, "ill").state == "failed", 30)
    ill = recorded(layout, "ill")
    assert ill.reason is not None
    assert "in a row" in ill.reason
    assert (ill.deaths[-1].status, ill.deaths[-1].log_tail[-1]) == (1, "cannot find the cure")

    cure.touch()
    supervisor(layout).send_signal(signal.SIGHUP)
    eventually(lambda: "ill lives" in read(layout, "ill"))
    eventually(lambda: recorded(layout, "ill").state == "running")


def test_a_program_that_does_not_exist_is_a_recorded_death(layout: Layout) -> None:
    """A child that cannot be started at all is told, not silently missing."""
    spec = child(layout, "none")
    none = ChildSpec(**{f: getattr(spec, f) for f in spec.__slots__} | {"command": ("/no/such",)})
    start(layout, none)
    eventually(lambda: recorded(layout, "none").deaths)
    death = recorded(layout, "none").deaths[0]
    assert death.cause == "could not be started"
    assert "No such file" in death.log_tail[-1]


def test_a_child_waits_for_the_port_it_needs(layout: Layout) -> None:
    """It is started when the port answers, not before."""
    port = ports.choose(1)[0]
    server = "import socket, sys, time\ntime.sleep(0.7)\n"
    server += f"s = socket.create_server(('127.0.0.1', {port}))\nprint(time.time(), flush=True)\n"
    server += "while True: s.accept()[0].close()\n"
    client = "import time\nprint(time.time(), flush=True)\n" + STAY
    start(layout, child(layout, "client", client, needs_port=port), child(layout, "server", server))
    eventually(lambda: "lives" in read(layout, "client"))
    assert float(read(layout, "server").split()[0]) < float(read(layout, "client").split()[0])


def test_there_is_one_supervisor(layout: Layout) -> None:
    """A second one for the same directory ends at once and starts nothing."""
    start(layout, child(layout, "a"))
    eventually(lambda: "a lives" in read(layout, "a"))
    first, life = supervisor(layout).pid, recorded(layout, "a").process
    start(layout, child(layout, "a"))
    eventually(lambda: "another supervisor" in read(layout, "supervisor"))
    assert (supervisor(layout).pid, recorded(layout, "a").process) == (first, life)
    assert read(layout, "a").count("lives") == 1


def read(layout: Layout, name: str) -> str:
    log = layout.log(name)
    return log.read_text() if log.exists() else ""
