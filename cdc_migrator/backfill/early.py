"""Build the indexes of tables that are loaded while others are still being copied.

A thread beside the load looks every now and then which tables have become whole, and has their
indexes and their primary, unique and exclusion constraints made: a large table's one by one, the
small ones' together, so many at a time as the budget allows. All else (foreign keys, triggers,
what belongs to partitioned tables) is left to `schema.make_indexes`. That also makes what this
thread has not, and says why where it cannot be made: here no error ends anything.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import psycopg

from cdc_migrator.backfill.build_settings import Machine, build_settings, machine
from cdc_migrator.backfill.keyindexes import KeyIndex, key_indexes
from cdc_migrator.backfill.schema import PostData, post_data
from cdc_migrator.backfill.schema_options import SchemaOptions
from cdc_migrator.backfill.toc import Entry, ObjectId
from cdc_migrator.backfill.tools import session_name
from cdc_migrator.control import load as rows
from cdc_migrator.control.load import Finished
from cdc_migrator.databases.postgres import names as quoted
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import MigratorError
from cdc_migrator.model.naming import Names
from cdc_migrator.model.tables import TableName

_LOOK_SECONDS = 0.1
_AGAIN_SECONDS = 30.0
# From this size on a table's indexes are built each by a pg_restore of its own.
_LARGE = 16 * 1024 * 1024

# ANALYZE reads by what these define, too, and early they are not there yet.
_ANALYZED_LATER = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indexprs IS NOT NULL)
OR EXISTS (SELECT FROM pg_statistic_ext WHERE stxrelid = c.oid)
"""

# A piece of work; returns what can only be begun after it.
Task = Callable[[], "list[Task]"]


@dataclass(slots=True)
class Early:
    """What came of it: indexes and constraints made, tables of the target whose statistics were
    gathered, and the code of the last error."""

    made: int = 0
    analyzed: set[TableName] = field(default_factory=set)
    failed: str | None = None


@contextmanager
def early_indexes(
    source_dsn: str,
    target_dsn: str,
    names: Names,
    tables: Sequence[TableName],
    options: SchemaOptions,
    patience: float = 2.0,
) -> Iterator[Early]:
    """Build beside the block, which loads; after it, wait until every whole table is built.

    Where the block raises, only what is under way is waited for.

    Args:
        patience: seconds before anything is done: a load that is over by then gains nothing.
    """
    builder = _Builder(source_dsn, target_dsn, names, tables, options, patience)
    thread = threading.Thread(target=builder.run, name="indexes")
    thread.start()
    try:
        yield builder.told
    except BaseException:
        builder.failing.set()
        raise
    finally:
        builder.over.set()
        thread.join()


class _Builder:
    def __init__(
        self,
        source_dsn: str,
        target_dsn: str,
        names: Names,
        tables: Sequence[TableName],
        options: SchemaOptions,
        patience: float,
    ) -> None:
        self._source_dsn = source_dsn
        self._target_dsn = target_dsn
        self._names = names
        self._called = f"cdcm-{names.migration}-schema"
        self._tables = tables
        self._options = options
        self._patience = patience
        self._keys: dict[ObjectId, KeyIndex] = {}
        self._btrees: set[ObjectId] = set()
        self._analyzed_later: set[TableName] = set()
        self._machine = Machine(0, 0)
        self.told = Early()
        self.over = threading.Event()
        self.failing = threading.Event()

    def run(self) -> None:
        pause = self._patience
        while not self.over.wait(pause):
            self.told.failed = self._try()
            if self.told.failed is None:
                return
            pause = _AGAIN_SECONDS

    def _try(self) -> str | None:
        """Build until all is built or the load is over; the code of the error that ended it."""
        try:
            with (
                post_data(
                    self._source_dsn, self._target_dsn, self._names, self._tables, self._options
                ) as post,
                connect(self._target_dsn, application_name=self._called, side="target") as target,
                ThreadPoolExecutor(self._options.jobs, thread_name_prefix="index") as pool,
            ):
                try:
                    self._build(post, target, pool)
                finally:
                    pool.shutdown(wait=False, cancel_futures=True)
        except MigratorError as error:
            return error.code
        except psycopg.Error as error:
            return type(error).__name__
        return None

    def _build(self, post: PostData, target: psycopg.Connection, pool: ThreadPoolExecutor) -> None:
        waiting = self._by_table(post.left)
        self._machine = machine(target, self._called)
        running: set[Future[list[Task]]] = set()
        while not self.failing.is_set():
            over = self.over.is_set()  # before looking: then nothing becomes whole unseen
            finished = [table for table in rows.finished(target) if table.source in waiting]
            for task in self._tasks(post, finished, waiting):
                running.add(pool.submit(task))
            if running:
                done, running = wait(running, _LOOK_SECONDS, FIRST_COMPLETED)
                running |= {pool.submit(task) for one in done for task in one.result()}
            elif over or not waiting:
                return
            else:
                self.over.wait(_LOOK_SECONDS)

    def _by_table(self, entries: Sequence[Entry]) -> dict[TableName, list[Entry]]:
        """The entries that only need their table's rows, by that table's name on the source."""
        known = {entry.object: entry for entry in entries if entry.object is not None}
        found: dict[TableName, list[Entry]] = defaultdict(list)
        with connect(self._source_dsn, application_name=self._called, side="source") as source:
            self._keys = key_indexes(source, entries)
            later = source.execute(_ANALYZED_LATER).fetchall()
            self._analyzed_later = {TableName(*name) for name in later}
            of_tables = source.execute(
                "SELECT o.catalog, o.oid, n.nspname, c.relname, a.amname = 'btree' "
                "FROM unnest(%s::int8[], %s::int8[]) AS o(catalog, oid) "
                "LEFT JOIN pg_index i ON o.catalog = 'pg_class'::regclass::int8 "
                "AND i.indexrelid = o.oid "
                "LEFT JOIN pg_class x ON x.oid = i.indexrelid LEFT JOIN pg_am a ON a.oid = x.relam "
                "LEFT JOIN pg_constraint k ON o.catalog = 'pg_constraint'::regclass::int8 "
                "AND k.oid = o.oid AND k.contype IN ('p', 'u', 'x') "
                "JOIN pg_class c ON c.oid = coalesce(i.indrelid, k.conrelid) AND c.relkind = 'r' "
                "JOIN pg_namespace n ON n.oid = c.relnamespace",
                ([one[0] for one in known], [one[1] for one in known]),
            )
            for catalog, oid, schema, table, sorts in of_tables:
                found[TableName(schema, table)].append(known[catalog, oid])
                if sorts:
                    self._btrees.add((catalog, oid))
        return found

    def _tasks(
        self,
        post: PostData,
        finished: Sequence[Finished],
        waiting: dict[TableName, list[Entry]],
    ) -> Iterator[Task]:
        """What to do for tables that have become whole; they wait no longer."""
        small: list[Entry] = []
        for table in finished:
            entries = waiting.pop(table.source)
            if table.parts > 1:
                yield partial(self._vacuum, post, table, entries)
            elif table.bytes >= _LARGE:
                yield from self._large(post, table, entries)
            else:
                small += entries
        for lane in range(self._options.jobs):
            if part := small[lane :: self._options.jobs]:
                yield partial(self._make, post, part)

    def _large(self, post: PostData, table: Finished, entries: Sequence[Entry]) -> list[Task]:
        """First what no index may be built beside; then all indexes at once; then keys of theirs.

        ANALYZE is such, and at the end of a load it would keep one processor, with no work left
        for the others. Of the indexes those of keys come last, as the quickest to build, most of
        them of integers that arrive in order: what is built alone in the end is then little.
        """
        keys = [self._keys[e.object] for e in entries if e.object in self._keys]
        alone = [e for e in entries if e.kind != "INDEX" and e.object not in self._keys]
        whole, sorting = (
            build_settings(self._options, self._machine, table.bytes, sorts)
            for sorts in (False, True)
        )
        builds: list[Callable[[], object]] = [
            *(
                partial(self._make, post, [e], sorting if e.object in self._btrees else whole)
                for e in entries
                if e.kind == "INDEX"
            ),
            *(partial(self._execute, key.build, sorting) for key in keys),
        ]
        tasks = _together(builds, partial(self._promote, keys))

        def first() -> list[Task]:
            if alone:
                self._make(post, alone, whole)
            if table.source not in self._analyzed_later:
                self._execute(f"ANALYZE {quoted.table(table.target).as_string()}", whole)
                self.told.analyzed.add(table.target)
            return tasks

        return [first]

    def _promote(self, keys: Sequence[KeyIndex]) -> list[Task]:
        for key in keys:
            self._execute(key.promote)
            self.told.made += 1
        return []

    def _execute(self, statement: str, settings: dict[str, str] | None = None) -> None:
        with (
            connect(
                self._target_dsn,
                application_name=session_name(self._called),
                side="target",
                settings=settings or self._options.settings,
            ) as conn,
            speaking("target", "building indexes"),
        ):
            conn.execute(statement.encode())

    def _make(
        self, post: PostData, entries: Sequence[Entry], settings: dict[str, str] | None = None
    ) -> list[Task]:
        post.make(entries, settings or self._options.settings)
        self.told.made += len(entries)
        return []

    def _vacuum(self, post: PostData, table: Finished, entries: Sequence[Entry]) -> list[Task]:
        """Mark the pages of a table that could not be frozen as visible to all.

        One more pass over the table, which spares each index and each foreign key more than that.
        """
        self._execute(
            f"VACUUM (TRUNCATE false) {quoted.table(table.target).as_string()}",
            build_settings(self._options, self._machine, table.bytes, sorts=False),
        )
        return self._large(post, table, entries)


def _together(builds: Sequence[Callable[[], object]], last: Task) -> list[Task]:
    """A task for each of `builds`; what ends as the last of them lets `last` begin."""
    left = list(builds)
    lock = threading.Lock()

    def task(build: Callable[[], object]) -> list[Task]:
        build()
        with lock:
            left.remove(build)
            return [] if left else [last]

    return [partial(task, build) for build in builds]
