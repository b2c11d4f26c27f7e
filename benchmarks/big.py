"""`python -m benchmarks.big`: memory of the load with ten million narrow rows and a table of 2 GB.

Prints the peak resident memory of the loader while each is copied. Equality is the tests' business;
here only the rows are counted.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import psycopg

from benchmarks.ours import command, database
from cdc_migrator.stack import local
from cdc_migrator.stack.local import StackInfo, StackOptions

_TABLES = {
    "narrow": "CREATE TABLE narrow AS SELECT n AS id, n % 97 AS k "
    "FROM generate_series(1, 10000000) n",
    "wide": "CREATE TABLE wide AS SELECT n AS id, repeat(md5(n::text), 30) AS a, "
    "md5(n::text) || repeat('x', 1000) AS b FROM generate_series(1, 1000000) n",
}


def main() -> int:
    """Load both, tell size, seconds and peak."""
    base = Path(tempfile.mkdtemp(prefix="cdcm-bench-"))
    base.chmod(0o755)
    try:
        return measure(local.up(StackOptions(base / "stack")), base)
    finally:
        local.down(base / "stack", purge=True)
        shutil.rmtree(base, ignore_errors=True)


def measure(stack: StackInfo, base: Path) -> int:
    """One migration of both tables; 1 if rows are missing."""
    source, target = database(stack.source_dsn, "big"), database(stack.target_dsn, "big")
    with psycopg.connect(source, autocommit=True) as conn:
        for table, statement in _TABLES.items():
            conn.execute(statement.encode())
            conn.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (id)".encode())
            size = conn.execute("SELECT pg_table_size(%s::regclass)", (table,)).fetchone()
            print(f"{table}: {(size or (0,))[0] / 1e9:.2f} GB")
    cli = command(stack, base, source, target)
    process = subprocess.Popen([*cli, "migrate", "--no-run"])
    watched = psutil.Process(process.pid)
    peak = 0
    while process.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.05)
    ended = process.wait()
    print(f"peak resident memory of the loader: {peak / 2**20:.0f} MiB, exit code {ended}")
    with psycopg.connect(target) as conn:
        rows = conn.execute("SELECT (SELECT count(*) FROM narrow), (SELECT count(*) FROM wide)")
        counted = rows.fetchone()
    print(f"rows: {counted}")
    subprocess.run([*cli, "abort", "--yes"], check=True, capture_output=True)
    return int(ended != 0 or counted != (10_000_000, 1_000_000))


if __name__ == "__main__":
    sys.exit(main())
