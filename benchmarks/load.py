"""`make bench-load`: schema, rows, indexes and keys of a database, by us and by others.

Two databases: one whose indexes take the time, one whose rows do. Each round moves the same source
into a fresh database by every way in turn; the content is compared after each. What is told is the
median of the rounds and its ratio to ``pg_dump | psql``.

    ours      `cdc-migrator migrate --no-run`: the seconds of its steps schema, load and indexes,
              ANALYZE included. Making slot and connector moves no rows, and is told apart. It is
              done before, and the load begins when Connect has become calm.
    at_once   the same without waiting: Connect, which belongs on a machine of its own, starts the
              new connector on the processors that the load uses.
    psql      pg_dump | psql
    restore   pg_dump -Fd -j2, then pg_restore -j2
    restore4  the same with four jobs
    pgcopydb  pgcopydb clone, where it is installed and knows the server's version

We and pgcopydb do four things at once, as either does where nothing is said.

At last writers work on the source while we load: see `traffic`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from benchmarks import traffic
from benchmarks.ours import command, database, keep, run, shell, wheel
from cdc_migrator.stack import local
from cdc_migrator.stack.local import StackInfo, StackOptions

RESULTS = Path("benchmarks/results/load.jsonl")
# Builds beside one another keep the cores busy.
OPTIONS: dict[str, object] = {"index_workers": 0}
# Loads that are not counted. The first ones find no write-ahead log to use again, and JVMs whose
# compilers are at work beside them: an idle connector costs 6 processor seconds during the first
# load, 2.5 from the eighth on. A worker that serves a migration has run for longer.
_COLD = 7
_SHOP = """
CREATE SCHEMA shop;
CREATE TABLE shop.orders (id bigint PRIMARY KEY, customer int NOT NULL, state text NOT NULL,
    total numeric(12,2) NOT NULL, placed timestamptz NOT NULL, shipped timestamptz,
    token uuid NOT NULL, paid boolean NOT NULL, items int NOT NULL, note text);
CREATE TABLE shop.lines (order_id bigint NOT NULL, line int NOT NULL, sku text NOT NULL,
    price numeric(10,2) NOT NULL, PRIMARY KEY (order_id, line));
INSERT INTO shop.orders SELECT n, n % 50000, (ARRAY['new','paid','sent','done'])[n % 4 + 1],
    n % 9999 + 0.5, timestamptz '2024-01-01' + n * interval '7 s',
    CASE WHEN n % 3 > 0 THEN timestamptz '2024-02-01' + n * interval '7 s' END,
    md5(n::text)::uuid, n % 2 = 0, n % 9, repeat('note ', (n % 7)::int)
    FROM generate_series(1, {rows} / 2) n;
INSERT INTO shop.lines SELECT n / 2, n % 2, 'sku-' || n % 1000, n % 500 + 0.25
    FROM generate_series(2, {rows} / 2 + 1) n;
CREATE INDEX orders_customer ON shop.orders (customer, placed);
CREATE INDEX orders_token ON shop.orders (token);
CREATE INDEX lines_sku ON shop.lines (sku);
ALTER TABLE shop.lines ADD FOREIGN KEY (order_id) REFERENCES shop.orders (id);
VACUUM ANALYZE;
"""
_EVENTS = """
CREATE SCHEMA shop;
CREATE TABLE shop.events (id bigint PRIMARY KEY, customer int NOT NULL, kind text NOT NULL,
    amount numeric(12,2) NOT NULL, tax numeric(12,4), at timestamptz NOT NULL,
    seen timestamptz, day date NOT NULL, token uuid NOT NULL, weight double precision,
    tags text[], note text);
CREATE TABLE shop.readings (id bigint PRIMARY KEY, sensor int NOT NULL, at timestamptz NOT NULL,
    low double precision, high double precision, mean numeric(12,4), unit text NOT NULL);
INSERT INTO shop.events SELECT n, n % 50000, (ARRAY['new','paid','sent','done'])[n % 4 + 1],
    n % 9999 + 0.5, n % 777 / 7.0, timestamptz '2024-01-01' + n * interval '7 s',
    CASE WHEN n % 3 > 0 THEN timestamptz '2024-02-01' + n * interval '7.123 s' END,
    date '2020-01-01' + (n % 1000)::int, md5(n::text)::uuid, n / 7.0,
    ARRAY['a' || n % 9, 'b'], repeat('note ', (n % 7)::int)
    FROM generate_series(1, {rows} / 2) n;
INSERT INTO shop.readings SELECT n, n % 1000, timestamptz '2024-01-01' + n * interval '1.001 s',
    n / 3.0, n / 3.0 + 1, n % 999 / 8.0, 'mm' FROM generate_series(1, {rows} / 2) n;
CREATE INDEX readings_sensor ON shop.readings (sensor);
VACUUM ANALYZE;
"""
# What takes the time: building indexes in the first, reading and writing rows in the second.
SHAPES = {
    "shop": (_SHOP, "two tables, 5 indexes, a foreign key"),
    "events": (_EVENTS, "two tables of 12 and 7 columns, their keys, an index"),
}

WAYS = ("ours", "at_once", "psql", "restore", "restore4", "pgcopydb")


def wait_until_calm(stack: StackInfo) -> None:
    """Until Connect takes less than a fifth of a processor for a second, 15 seconds at most."""
    process = psutil.Process(local.status(stack.state_dir).pids["connect"])
    for _ in range(15):
        if process.cpu_percent(interval=1.0) < 20.0:
            return


def read_through(source: str) -> None:
    """Every way finds the source cached: a machine may give up what nobody has read for a while."""
    with psycopg.connect(source) as conn:
        tables = conn.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' "
            "AND relnamespace = 'shop'::regnamespace"
        ).fetchall()
        for (table,) in tables:
            conn.execute(f"SELECT count(*) FROM {table}".encode())


def content(dsn: str) -> list[tuple[object, ...]]:
    """Of each table: rows, digest, indexes, and all constraints but NOT NULL."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SET TimeZone = 'UTC'")
        tables = conn.execute(
            "SELECT relname, (SELECT count(*) FROM pg_index WHERE indrelid = c.oid), "
            "(SELECT string_agg(pg_get_constraintdef(k.oid), '; ' ORDER BY conname) "
            "FROM pg_constraint k WHERE conrelid = c.oid AND contype <> 'n' AND convalidated) "
            "FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'shop'::regnamespace "
            "ORDER BY relname"
        ).fetchall()
        told = []
        for table in tables:
            digest = sql.SQL(
                "SELECT count(*), sum(hashtextextended(t::text, 7)::numeric) FROM shop.{} t"
            ).format(sql.Identifier(table[0]))
            told.append((*table, *(conn.execute(digest).fetchone() or ())))
    return told


class Ways:
    """Every way to move the database; each takes the target's connection string."""

    def __init__(self, stack: StackInfo, source: str, directory: Path, tools: Path) -> None:
        self._stack = stack
        self._source = source
        self._directory = directory
        self._tools = tools
        self.other: list[float] = []

    def ours(self, target: str) -> float:
        """Schema, load and indexes of `migrate --no-run`, beside a connector that is there."""
        return self._ours(target, calm=True)

    def at_once(self, target: str) -> float:
        """The same, while Connect starts the connector."""
        return self._ours(target, calm=False)

    def _ours(self, target: str, calm: bool) -> float:
        cli = command(self._stack, self._directory, self._source, target, self._tools, **OPTIONS)
        made = 0.0
        if calm:
            # Once more than needed: `migrate` looks again, and finds nothing to make. What the
            # first took longer than the second is what making took.
            made = self._schema(cli) - self._schema(cli)
            run(cli, "capture", "start")
            wait_until_calm(self._stack)
            read_through(self._source)
        said = run(cli, "migrate", "--no-run")
        found = re.search(r"ready to apply changes: (.*)", said)
        assert found is not None, said
        took = {step: float(s) for step, s in re.findall(r"(\w+) ([\d.]+) s", found[1])}
        run(cli, "abort", "--yes")
        print(f"         ({found[1]})", flush=True)
        if not calm:
            self.other.append(took["capture"])
        return made + took["schema"] + took["load"] + took["indexes"]

    def _schema(self, cli: list[str]) -> float:
        began = time.monotonic()
        run(cli, "schema", "apply", "pre-data")
        return time.monotonic() - began

    def psql(self, target: str) -> float:
        """pg_dump | psql."""
        tools = self._tools
        return shell(
            f"{tools}/pg_dump --no-owner '{self._source}' | {tools}/psql -qX -v ON_ERROR_STOP=1 "
            f"'{target}'"
        )

    def restore(self, target: str, jobs: int = 2) -> float:
        """pg_dump -Fd, pg_restore, with so many jobs."""
        place = self._directory / "dump"
        shutil.rmtree(place, ignore_errors=True)
        tools = self._tools
        return shell(
            f"{tools}/pg_dump --no-owner -Fd -j{jobs} -Z0 -f {place} '{self._source}' && "
            f"{tools}/pg_restore --no-owner -j{jobs} -d '{target}' {place}"
        )

    def restore4(self, target: str) -> float:
        """pg_dump -Fd -j4, pg_restore -j4."""
        return self.restore(target, jobs=4)

    def pgcopydb(self, target: str) -> float:
        """pgcopydb clone with four jobs for tables and for indexes."""
        place = self._directory / "pgcopydb"
        shutil.rmtree(place, ignore_errors=True)
        return shell(
            f"pgcopydb clone --table-jobs 4 --index-jobs 4 --no-owner --no-acl --dir {place}",
            PGCOPYDB_SOURCE_PGURI=self._source,
            PGCOPYDB_TARGET_PGURI=target,
            PATH=f"{self._tools}:{os.environ['PATH']}",
        )


def main() -> int:
    """Measure, print, append to the results; 1 if some content differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=10_000_000, help="of both tables together")
    parser.add_argument("--shapes", nargs="+", choices=sorted(SHAPES), default=list(SHAPES))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="beside psql")
    parser.add_argument("--traffic-rounds", type=int, default=2)
    parser.add_argument("--postgres-bin", type=Path, help="servers and tools of another version")
    arguments = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="cdcm-bench-"))
    base.chmod(0o755)
    tools = arguments.postgres_bin or wheel()
    failed = []
    try:
        stack = local.up(
            StackOptions(base / "stack", full_jit=True, postgres_bin=arguments.postgres_bin)
        )
        for shape in arguments.shapes:
            source = _source(stack, shape, arguments.rows)
            ways = Ways(stack, source, base, tools)
            taken = [name for name in WAYS if name == "psql" or name in arguments.ways]
            chosen = {name: getattr(ways, name) for name in taken}
            failed += measure(stack, ways, chosen, source, shape, arguments)
        if arguments.traffic_rounds:
            source = _source(stack, "shop", arguments.rows)
            seen = traffic.measure(
                stack, base, source, arguments.rows // 2, arguments.traffic_rounds, tools
            )
            keep(RESULTS, {"traffic": seen})
    finally:
        local.down(base / "stack", purge=True)
        shutil.rmtree(base, ignore_errors=True)
    if failed:
        print(f"content differs: {failed}")
    return bool(failed)


def _source(stack: StackInfo, shape: str, rows: int) -> str:
    source = database(stack.source_dsn, "bench_source")
    with psycopg.connect(source, autocommit=True) as conn:
        for statement in SHAPES[shape][0].format(rows=rows).split(";\n"):
            if statement.strip():
                conn.execute(statement.encode())
    return source


def measure(
    stack: StackInfo,
    ways: Ways,
    chosen: dict[str, Callable[[str], float]],
    source: str,
    shape: str,
    arguments: argparse.Namespace,
) -> list[str]:
    """The chosen ways in turn, as often as there are rounds; those whose content differs."""
    wanted = content(source)
    with psycopg.connect(source) as conn:
        version = conn.info.server_version // 10000
    if not shutil.which("pgcopydb"):
        chosen.pop("pgcopydb", None)
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    failed = []
    for _ in range(_COLD):
        ways.ours(database(stack.target_dsn, "bench_target"))
    for round_ in range(arguments.rounds):
        order = list(chosen.items())
        for name, way in order[round_ % len(order) :] + order[: round_ % len(order)]:
            target = database(stack.target_dsn, "bench_target")
            read_through(source)
            try:
                seconds[name].append(way(target))
            except subprocess.CalledProcessError as error:
                print(f"{name} does not work here: {str(error.stderr)[-1000:]}")
                if name == "ours":
                    raise
                del chosen[name], seconds[name]
                continue
            if content(target) != wanted:
                failed.append(f"{shape} {name}")
            print(f"round {round_ + 1}  {name:9} {seconds[name][-1]:7.2f} s", flush=True)
    tell(seconds, shape, arguments.rows, version, ways.other)
    keep(
        RESULTS,
        {
            "shape": shape,
            "postgres": version,
            "rows": arguments.rows,
            "seconds": {name: [round(s, 2) for s in took] for name, took in seconds.items()},
        },
    )
    return failed


def tell(
    seconds: dict[str, list[float]], shape: str, rows: int, version: int, capture: list[float]
) -> None:
    """Print a table of medians."""
    base = statistics.median(seconds["psql"])
    print(f"\n{shape}: {rows:,} rows, {SHAPES[shape][1]}; PostgreSQL {version}")
    for name, took in seconds.items():
        middle = statistics.median(took)
        print(
            f"  {name:9} {middle:7.2f} s ({min(took):.2f} to {max(took):.2f})  "
            f"{rows / middle:10,.0f} rows/s  {base / middle:5.2f} x psql"
        )
    if capture:
        print(
            f"  (slot, connector, its first event, not counted: {statistics.median(capture):.1f} s)"
        )


if __name__ == "__main__":
    sys.exit(main())
