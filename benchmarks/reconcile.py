"""`make bench-reconcile`: comparing a table, by us and by the queries that others use.

One table of five million rows and its copy. In each round every query reads the source's table
whole, alone and in one session; then whole passes follow, clean and with one bad row, in turn. The
machine's other work falls on all alike: what counts are the medians of each round's ratios.

    ours       what a pass asks: hashes, grouped into chunks
    md5        data-diff's: a part of md5 over all columns as text, summed
    pgcopydb   what `pgcopydb compare data` asks: a sum of hashtext over the row's text
    count      count(*)

Then rows in one chunk out of a hundred are updated on both sides and marked, and only what is due
is compared, in turn with whole passes.

At last: how many events a second the service applies while such passes go on beside it, `beside`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg import sql

from benchmarks import beside
from cdc_migrator.control import proofs
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.differences import RowDifference
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile import narrow
from cdc_migrator.reconcile.chunks import Range, Slicer, Unit
from cdc_migrator.reconcile.digest import statement
from cdc_migrator.reconcile.expressions import Hashing
from cdc_migrator.reconcile.options import PassOptions
from cdc_migrator.reconcile.pairs import only, read_pairs
from cdc_migrator.service import reconcile
from cdc_migrator.service.reconcile import ReconcileOptions
from cdc_migrator.service.reconcile_report import Report
from tests.integration.reconcile_rig import NAME, World, world

RESULTS = Path("benchmarks/results/reconcile.jsonl")
ORDERS = TableName("shop", "orders")
# Of the time in which a comparison works beside the applier.
SHARES = (1.0, 0.1)
_BESIDE_ROWS = 1_000_000
_TABLE = """
CREATE SCHEMA shop;
CREATE TABLE shop.orders (id bigint NOT NULL, customer int NOT NULL, state text NOT NULL,
    total numeric(12,2) NOT NULL, placed timestamptz NOT NULL, shipped timestamptz,
    token uuid NOT NULL, paid boolean NOT NULL, items int NOT NULL, note text);
INSERT INTO shop.orders SELECT n, n % 50000, (ARRAY['new','paid','sent','done'])[n % 4 + 1],
    n % 9999 + 0.5, timestamptz '2024-01-01' + n * interval '7 s',
    CASE WHEN n % 3 > 0 THEN timestamptz '2024-02-01' + n * interval '7 s' END,
    md5(n::text)::uuid, n % 2 = 0, n % 9, repeat('note ', (n % 7)::int)
    FROM generate_series(1, {rows}) n;
ALTER TABLE shop.orders ADD PRIMARY KEY (id);
VACUUM ANALYZE shop.orders;
"""
_OTHERS = {
    "md5": "SELECT count(*), sum(('x' || substring(md5(concat_ws('|', id::text, customer::text, "
    "state, total::text, placed::text, shipped::text, token::text, paid::text, items::text, note"
    ")), 18))::bit(60)::bigint) FROM shop.orders",
    "pgcopydb": "SELECT count(*), sum(hashtext(o::text)::bigint) FROM shop.orders o",
    "count": "SELECT count(*) FROM shop.orders",
}


def main() -> int:
    """Measure, tell, and add a line to the results."""
    parser = argparse.ArgumentParser(description="Compare a table, by us and by others.")
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=200_000, help="applied beside a comparison")
    parser.add_argument("--keep", action="store_true", help="add the result to the file")
    options = parser.parse_args()
    *statements, _ = _TABLE.format(rows=options.rows).split(";\n")
    with world(*statements) as made:
        result = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "rows": options.rows,
            "rounds": options.rounds,
            **queries(made, options.rows, options.rounds),
            **passes(made, options.rounds),
            **incremental(made, options.rounds),
        }
    result |= beside.measure(
        _TABLE.format(rows=_BESIDE_ROWS), _BESIDE_ROWS, options.events, options.rounds, SHARES
    )
    print(json.dumps(result, indent=2))
    if options.keep:
        with RESULTS.open("a") as file:
            file.write(json.dumps(result) + "\n")
    good = (
        result["ours_over_md5"] >= 2.5
        and result["one_bad_row_over_clean_by_its_clock"] <= 1.05
        and result["incremental_over_full"] <= 0.03
    )
    return 0 if good else 1


def queries(made: World, rows: int, rounds: int) -> dict[str, Any]:
    """Millions of rows a second of one session, which keeps one core busy."""
    pair = only(read_pairs(made.source, made.target, {ORDERS: ORDERS}))[ORDERS]
    bounds = tuple(str(n) for n in range(16_000, rows, 16_000))
    ours = statement(
        pair,
        Slicer(pair, "id", Hashing()),
        Hashing(),
        Unit(ORDERS, 0, "id", Range(), bounds, rows),
        False,
        sql.SQL("true"),
    )
    asked: dict[str, Any] = {"ours": ours, **{n: q.encode() for n, q in _OTHERS.items()}}
    taken: dict[str, list[float]] = {name: [] for name in asked}
    settings = {"max_parallel_workers_per_gather": "0", "jit": "off", "work_mem": "32MB"}
    with connect(made.source_dsn, application_name="bench", settings=settings) as conn:
        for number in range(rounds + 1):
            for name, query in asked.items():
                seconds = timed(lambda q=query: conn.execute(q).fetchall())  # type: ignore[misc]
                if number:  # the first round warms the caches
                    taken[name].append(seconds)
    speed = {name: rows / statistics.median(of) / 1e6 for name, of in taken.items()}
    return {
        "million_rows_a_second": {name: round(one, 2) for name, one in speed.items()},
        "ours_over_md5": round(ratio(taken["md5"], taken["ours"]), 2),
        "ours_over_pgcopydb": round(ratio(taken["pgcopydb"], taken["ours"]), 2),
        "ours_over_count": round(ratio(taken["count"], taken["ours"]), 2),
    }


def passes(made: World, rounds: int) -> dict[str, Any]:
    """Whole passes over both sides, journal and all; in half of the rounds the bad one first.

    What naming the row took is told twice: by the rounds' ratios, and by the seconds that the pass
    with the bad row spent on it, which the machine's other work disturbs less.
    """
    clean: list[float] = []
    bad: list[float] = []
    naming: list[float] = []
    for number in range(rounds + 1):
        for wrong in (False, True) if number % 2 else (True, False):
            made.target.execute(
                "UPDATE shop.orders SET total = %s * abs(total) WHERE id = 1234567",
                (-1 if wrong else 1,),
            )
            with clocked() as spent:
                began = time.monotonic()
                report = run(made)
                seconds = time.monotonic() - began
            if number:
                (bad if wrong else clean).append(seconds)
            if number and wrong:
                naming.append(sum(spent) / (seconds - sum(spent)))
            found = made.found(report)
            expected = {("shop.orders", ("1234567",)): ("different", "total")} if wrong else {}
            assert found == expected, found
    made.target.execute("UPDATE shop.orders SET total = abs(total) WHERE id = 1234567")
    return {
        "clean_pass_seconds": round(statistics.median(clean), 3),
        "one_bad_row_seconds": round(statistics.median(bad), 3),
        "one_bad_row_over_clean": round(ratio(bad, clean), 3),
        "one_bad_row_over_clean_by_its_clock": round(1 + statistics.median(naming), 3),
    }


def incremental(made: World, rounds: int) -> dict[str, Any]:
    """What is due after a row in each hundredth chunk was written to, over a whole pass."""
    full: list[float] = []
    some: list[float] = []
    for number in range(rounds + 1):
        whole = run(made)
        chunks, rows = whole.tables[0].chunks, whole.tables[0].rows
        ids = [int((first + 0.5) * rows / chunks) for first in range(0, chunks, 100)]
        for conn in (made.source, made.target):
            conn.execute("UPDATE shop.orders SET items = items + 1 WHERE id = ANY(%s)", (ids,))
        written = mark(made, ids)
        report = run(made, "incremental")
        assert report.equal
        assert report.tables[0].digested == len(written) == len(ids)
        if number:
            full.append(whole.seconds)
            some.append(report.seconds)
    return {
        "chunks": chunks,
        "chunks_written_to": len(ids),
        "full_pass_seconds": round(statistics.median(full), 3),
        "incremental_pass_seconds": round(statistics.median(some), 3),
        "incremental_over_full": round(ratio(some, full), 4),
    }


def mark(made: World, ids: list[int]) -> list[tuple[int, int]]:
    """Mark the chunks of these rows, as who applies does; which they are."""
    (known,) = proofs.maps(made.target)
    assert known.place is not None
    numbers = made.target.execute(
        sql.SQL("SELECT DISTINCT {} FROM unnest({}::int8[]) AS t (id)").format(
            sql.SQL(known.place), sql.Literal(ids)
        )
    )
    written = [(known.id, number) for (number,) in numbers]
    proofs.mark(made.target, written)
    return written


@contextmanager
def clocked() -> Iterator[list[float]]:
    """The seconds that are spent on finding rows in chunks that do not match."""
    spent: list[float] = []
    real = narrow.differences

    def differences(*arguments: Any) -> Iterator[RowDifference]:
        began = time.monotonic()
        yield from real(*arguments)
        spent.append(time.monotonic() - began)

    narrow.differences = differences
    try:
        yield spent
    finally:
        narrow.differences = real


def run(made: World, mode: str = "full") -> Report:
    """One pass as the command makes it."""
    return reconcile.run(
        ReconcileOptions(NAME, made.source_dsn, made.target_dsn, mode=mode, work=PassOptions()),
        made.aligner,
    )


def ratio(above: list[float], below: list[float]) -> float:
    """The median of the rounds' own ratios, so that the machine's moods cancel out."""
    return statistics.median(one / other for one, other in zip(above, below, strict=True))


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
