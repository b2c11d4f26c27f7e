"""`make bench-apply`: draining a topic that is full of changes, by us and by others.

For each workload the source commits its changes once, while our connector and that of Debezium's
JDBC sink capture them and a slot keeps them for logical replication. Then every way in turn applies
them to a fresh copy of the target; its content is compared with the source's after each. What is
told is the median of the rounds, in row events a second and for each processor second. Which ways
there are, and how they are timed: `draining`.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from confluent_kafka import Consumer, KafkaException, TopicPartition

from benchmarks import draining, latency, sink
from benchmarks.draining import Drained, Scene
from benchmarks.ours import command, database, keep, run, shell, wheel
from benchmarks.workloads import WORKLOADS, Workload
from cdc_migrator.stack import local, lock
from cdc_migrator.stack.local import StackInfo, StackOptions

PEERS = Path(__file__).with_name("peers.lock.json")
WAYS: dict[str, Callable[[Scene], Drained]] = {
    "ours": draining.ours,
    "native": draining.native,
    "sink": draining.sink_of(reduced=False),
    "folded": draining.sink_of(reduced=True),
    "copy": draining.copy,
}


def main() -> int:
    """Measure, print, append to the results; 1 if some content differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the largest table")
    parser.add_argument("--workloads", nargs="*", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--latency-seconds", type=float, default=20.0, help="0: leave it out")
    arguments = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="cdcm-bench-"))
    base.chmod(0o755)
    failed: list[str] = []
    try:
        stack = local.up(StackOptions(base / "stack", full_jit=True, jar_lock=_jars(base)))
        for name in arguments.workloads:
            workload = WORKLOADS[name]
            ways = [one for one in arguments.ways if one != "copy" or workload.copied]
            events = arguments.events * workload.times
            scene = prepare(stack, base, workload, events, arguments.rows, ways)
            failed += measure(scene, ways, arguments.rounds)
            clear(scene)
        if arguments.latency_seconds:
            seen = latency.measure(stack, base, arguments.latency_seconds, arguments.rounds)
            keep(draining.RESULTS, {"latency": seen})
    finally:
        local.down(base / "stack", purge=True)
        shutil.rmtree(base, ignore_errors=True)
    if failed:
        print(f"content differs: {failed}")
    return bool(failed)


def _jars(base: Path) -> Path:
    """The stack's jars and the peer's."""
    ours, peers = lock.read(), lock.read(PEERS)
    place = base / "jars.lock.json"
    lock.write(lock.JarLock(ours.class_path, ours.plugins + peers.plugins), place)
    return place


def prepare(
    stack: StackInfo, base: Path, workload: Workload, events: int, rows: int, ways: list[str]
) -> Scene:
    """Make both databases, capture and commit the changes, and wait until all are captured."""
    source = database(stack.source_dsn, "bench_source")
    tables = workload.tables
    with psycopg.connect(source, autocommit=True) as conn:
        for statement in workload.base(rows):
            conn.execute(statement.encode())
        plain = database(stack.target_dsn, "bench_plain")
        shell(f"{wheel()}/pg_dump '{source}' | {wheel()}/psql -qX -v ON_ERROR_STOP=1 '{plain}'")
        with psycopg.connect(plain, autocommit=True) as target:
            target.execute("VACUUM ANALYZE")
        cli = command(stack, base, source, database(stack.target_dsn, "bench_ours"))
        run(cli, "migrate", "--no-run")
        conn.execute(
            f"CREATE PUBLICATION {draining.PUBLICATION} FOR TABLE {', '.join(tables)}".encode()
        )
        conn.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (draining.SLOT,))
        topics: dict[str, str] = {}
        if {"sink", "folded"} & set(ways):
            sink.publish(conn, tables)
            topics = sink.capture(stack, source, tables)
        conn.execute("SET synchronous_commit = off")
        began = time.monotonic()
        conn.execute(workload.changes(events, rows).encode())
        took = time.monotonic() - began
        later = captured(stack, conn, topics)
        print(f"{workload.name}: committed in {took:.1f} s, captured {later:.1f} s later")
        inserted = None
        if workload.copied:
            inserted = base / "inserted.copy"
            query = f"COPY (SELECT * FROM {tables[0]} WHERE id > {rows}) TO STDOUT"
            with inserted.open("wb") as file, conn.cursor().copy(query.encode()) as rows_:
                for block in rows_:
                    file.write(block)
    number = events // workload.each * workload.each + 2 * len(tables)
    return Scene(stack, workload, source, number, cli, topics, inserted)


def captured(stack: StackInfo, source: psycopg.Connection, topics: dict[str, str]) -> float:
    """Wait until both connectors have sent everything; the seconds that it took."""
    began = time.monotonic()
    row = source.execute("SELECT pg_current_wal_lsn()").fetchone()
    assert row is not None
    behind = (
        "SELECT NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name LIKE 'cdcm%%' "
        f"AND confirmed_flush_lsn < '{row[0]}')"
    )
    draining.until(source.info.dsn + f" password={source.info.password}", behind)
    for topic in topics.values():
        while not _ends(stack, topic):
            time.sleep(0.5)
    return time.monotonic() - began


def _ends(stack: StackInfo, topic: str) -> bool:
    """Whether the last row of a topic is the last one of the changes."""
    consumer = Consumer(
        {"bootstrap.servers": stack.bootstrap_servers, "group.id": "bench", "log_level": 0}
    )
    try:
        _, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=5.0)
        consumer.assign([TopicPartition(topic, 0, max(0, high - 4))])
        found = [m.value() or b"" for m in consumer.consume(4, 1.0) if m.error() is None]
    except KafkaException:
        return False
    finally:
        consumer.close()
    return any(b'"note":"end"' in value for value in found)


def clear(scene: Scene) -> None:
    """Remove what captured the changes."""
    run(scene.cli, "abort", "--yes")
    sink.forget(scene.stack, sorted({one.split(".")[0] for one in scene.topics.values()}))
    # A connector that was deleted still lets go of its slot.
    draining.until(
        scene.source,
        "SELECT NOT EXISTS (SELECT FROM pg_replication_slots WHERE active "
        "AND database = current_database())",
    )
    with psycopg.connect(scene.source, autocommit=True) as conn:
        conn.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            "WHERE database = current_database()"
        )


def measure(scene: Scene, ways: list[str], rounds: int) -> list[str]:
    """All ways in turn, as often as there are rounds; those whose content differs."""
    workload = scene.workload
    wanted = draining.content(scene.source, workload.tables)
    seen: dict[str, list[Drained]] = {name: [] for name in ways}
    failed = []
    for round_ in range(rounds):
        turn = round_ % len(ways)
        for name in ways[turn:] + ways[:turn]:
            one = WAYS[name](scene)
            seen[name].append(one)
            target = draining.named(scene.stack.target_dsn, draining.DRAINED)
            if draining.content(target, workload.tables) != wanted:
                failed.append(f"{workload.name} {name}")
            print(f"round {round_ + 1}  {name:7} {one.seconds:7.2f} s", flush=True)
    tell(seen, workload, scene.events)
    draining.keep_all(workload.name, scene.events, seen)
    return failed


def tell(seen: dict[str, list[Drained]], workload: Workload, events: int) -> None:
    """Print a table of medians, and ours as a multiple of each."""
    print(f"\n{workload.name}: {events:,} row events: {workload.told}")
    ours = statistics.median(one.seconds for one in seen["ours"]) if "ours" in seen else None
    for name, all_ in seen.items():
        took = [one.seconds for one in all_]
        middle = statistics.median(took)
        processors = statistics.median(one.client + one.server for one in all_)
        ratio = f"ours is {middle / ours:5.2f} x" if ours is not None else ""
        print(
            f"  {name:7} {events / middle:9,.0f} events/s ({events / max(took):,.0f} to "
            f"{events / min(took):,.0f})  {events / processors:9,.0f} a CPU second  {ratio}"
        )
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
