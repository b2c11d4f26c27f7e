"""Writers of every kind against the source's fence, and what the topic says of it.

The judge reads the topic's raw records: behind a `fence` marker, up to the `unfence` marker of the
same fence, there must be no change of a fenced table. It shares no code with the fence.
"""

from __future__ import annotations

import hashlib
import json
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg
from confluent_kafka import Consumer, TopicPartition

from cdc_migrator.cutover import fence
from cdc_migrator.cutover.fence import FenceOptions
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import MigratorError
from cdc_migrator.model.tables import TableName

TARGET = """
CREATE SCHEMA bank;
CREATE TABLE bank.account (id bigint PRIMARY KEY, n bigint NOT NULL DEFAULT 0);
CREATE TABLE bank.entry (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account bigint REFERENCES bank.account (id) ON DELETE CASCADE, n bigint);
CREATE TABLE bank.part (id bigint, region int, n bigint, PRIMARY KEY (id, region))
    PARTITION BY LIST (region);
CREATE TABLE bank.part_1 PARTITION OF bank.part FOR VALUES IN (1);
CREATE TABLE bank.part_2 PARTITION OF bank.part FOR VALUES IN (2);
CREATE TABLE bank.log (line text);
ALTER TABLE bank.log REPLICA IDENTITY FULL;
"""
SOURCE = """
INSERT INTO bank.account SELECT g FROM generate_series(1, 50) g;
CREATE ROLE {role} NOLOGIN;
CREATE FUNCTION bank.deposit(bigint) RETURNS void LANGUAGE sql SECURITY DEFINER
    AS 'UPDATE bank.account SET n = n + 1 WHERE id = $1';
GRANT USAGE ON SCHEMA bank TO {role};
GRANT EXECUTE ON FUNCTION bank.deposit(bigint) TO {role};
"""


def digest(token: str) -> str:
    """What stands for a token in the fence's function."""
    return hashlib.sha256(token.encode()).hexdigest()


TABLES = [TableName("bank", name) for name in ("account", "entry", "part", "log")]

Write = Callable[[psycopg.Connection, int], None]


def _prepared(conn: psycopg.Connection, turn: int) -> None:
    query = "UPDATE bank.account SET n = n + 1 WHERE id = %s"
    conn.execute(query, (turn % 50 + 1,), prepare=True)


def _copy(conn: psycopg.Connection, turn: int) -> None:
    with conn.cursor().copy("COPY bank.entry (account, n) FROM STDIN") as copy:
        for line in range(3):
            copy.write_row((turn % 40 + 1, line))


def _truncate(conn: psycopg.Connection, turn: int) -> None:
    conn.execute("INSERT INTO bank.log VALUES (%s)", (str(turn),))
    if turn % 7 == 0:
        conn.execute("TRUNCATE bank.log")


def _replica(conn: psycopg.Connection, turn: int) -> None:
    conn.execute("SET session_replication_role = replica")
    conn.execute("UPDATE bank.account SET n = n + 1 WHERE id = %s", (turn % 50 + 1,))


def _partition(conn: psycopg.Connection, turn: int) -> None:
    conn.execute("INSERT INTO bank.part_1 VALUES (%s, 1, 0)", (secrets.randbits(60),))
    conn.execute("INSERT INTO bank.part VALUES (%s, 2, 0)", (secrets.randbits(60),))
    conn.execute("UPDATE bank.part SET region = 3 - region WHERE id = %s", (turn,))


def _merge(conn: psycopg.Connection, turn: int) -> None:
    conn.execute(
        "MERGE INTO bank.account a USING (VALUES (%s::bigint)) v(id) ON a.id = v.id "
        "WHEN MATCHED THEN UPDATE SET n = n + 1 WHEN NOT MATCHED THEN INSERT VALUES (v.id, 0)",
        (turn % 60 + 1,),
    )


def _cascade(conn: psycopg.Connection, turn: int) -> None:
    key = 1000 + turn % 20
    conn.execute("INSERT INTO bank.account VALUES (%s) ON CONFLICT DO NOTHING", (key,))
    conn.execute("INSERT INTO bank.entry (account, n) VALUES (%s, 1)", (key,))
    conn.execute("DELETE FROM bank.account WHERE id = %s", (key,))


def _two_phase(conn: psycopg.Connection, turn: int) -> None:
    conn.execute("UPDATE bank.account SET n = n + 1 WHERE id = %s", (turn % 50 + 1,))


def _cte(conn: psycopg.Connection, turn: int) -> None:
    conn.execute(
        "WITH gone AS (DELETE FROM bank.entry WHERE account = %s RETURNING id) "
        "INSERT INTO bank.log SELECT id::text FROM gone",
        (turn % 50 + 1,),
    )


WRITERS: dict[str, Write] = {
    "prepared statement": _prepared,
    "copy": _copy,
    "truncate": _truncate,
    "replica role": _replica,
    "partition": _partition,
    "merge": _merge,
    "cascade": _cascade,
    "security definer": lambda conn, turn: (
        conn.execute("SELECT bank.deposit(%s)", (turn % 50 + 1,)) and None
    ),
    "two phases": _two_phase,
    "common table expression": _cte,
    "vacuum": lambda conn, turn: None,
}


@dataclass
class Writers:
    """A thread for each kind of writer, some of whose transactions last a while."""

    dsn: str
    role: str
    seed: int
    refused: Counter[str] = field(default_factory=Counter)
    committed: Counter[str] = field(default_factory=Counter)
    stalls: list[float] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(kind, write), name=kind)
            for kind, write in WRITERS.items()
        ]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _run(self, kind: str, write: Write) -> None:
        chance = random.Random(f"{self.seed} {kind}")
        try:
            with psycopg.connect(self.dsn, autocommit=True) as conn:
                if kind == "security definer":
                    conn.execute(f"SET ROLE {self.role}".encode())
                turn = 0
                while not self._stop.wait(chance.uniform(0.001, 0.01)):
                    turn += 1
                    self._once(conn, kind, write, turn, chance)
        except BaseException as error:  # told by the main thread
            self.errors.append(error)

    def _once(
        self, conn: psycopg.Connection, kind: str, write: Write, turn: int, chance: random.Random
    ) -> None:
        if kind == "vacuum":
            if turn % 40 == 0:
                conn.execute("VACUUM bank.entry")
                self.committed[kind] += 1
            return
        began = time.monotonic()
        try:
            if kind == "two phases":
                self._both_phases(conn, write, turn, chance)
            else:
                with conn.transaction():
                    write(conn, turn)
                    if chance.random() < 0.02:
                        time.sleep(chance.uniform(0.02, 0.2))
            self.committed[kind] += 1
            self.stalls.append(time.monotonic() - began)
        except psycopg.errors.ReadOnlySqlTransaction:
            self.refused[kind] += 1
        except (psycopg.errors.DeadlockDetected, psycopg.errors.ForeignKeyViolation):
            pass

    def _both_phases(
        self, conn: psycopg.Connection, write: Write, turn: int, chance: random.Random
    ) -> None:
        if turn % 10:
            return
        gid = f"{self.role}_{turn}"
        conn.execute("BEGIN")
        try:
            write(conn, turn)
            conn.execute(f"PREPARE TRANSACTION '{gid}'".encode())
        except psycopg.Error:
            conn.execute("ROLLBACK")
            raise
        time.sleep(chance.uniform(0.0, 0.03))
        conn.execute(f"COMMIT PREPARED '{gid}'".encode())


@dataclass(frozen=True)
class Fences:
    """What became of some fences: held in milliseconds, and refusals by code."""

    held: list[float]
    tries: list[int]
    refusals: Counter[str]


def fence_often(dsn: str, migration: str, times: int, pause: float, seed: int) -> Fences:
    """Raise and lift the fence again and again while writers are at work."""
    chance = random.Random(seed)
    held, tries, refusals = [], [], Counter[str]()
    token = secrets.token_urlsafe(16)
    with connect(dsn, application_name="test fence") as conn:
        tables = fence.prepare(conn, migration, TABLES, digest(token))
        while len(held) < times:
            marker = secrets.token_hex(8)
            try:
                raised = fence.raise_fence(conn, migration, tables, marker, FenceOptions(20.0))
            except MigratorError as error:
                if error.code not in ("CDCM-FENCE-OBSTACLE", "CDCM-FENCE-BUDGET"):
                    raise
                refusals[error.code] += 1
                time.sleep(0.01)
                continue
            assert fence.holes(conn, TABLES) == []
            held.append(raised.held_ms)
            tries.append(raised.tries)
            time.sleep(chance.uniform(0.0, pause))
            fence.lower(conn, migration, tables, marker)
            time.sleep(chance.uniform(0.0, pause))
    return Fences(held, tries, refusals)


def changes_behind_fences(
    bootstrap: str, topic: str, dsn: str, migration: str
) -> tuple[int, int, int]:
    """(fences, changes of rows in all, changes of rows between a fence and its lifting)."""
    last = secrets.token_hex(16)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO cdc_migrator.marker (migration, kind, token) VALUES (%s, 'ping', %s)",
            (migration, last),
        )
    fences = changes = behind = 0
    up = False
    for value in _records(bootstrap, topic, last):
        where = value.get("source", {})
        if where.get("schema") == "bank":
            changes += 1
            behind += up
        elif where.get("table") == "marker" and value.get("op") == "c":
            kind = value["after"]["kind"]
            if kind == "fence":
                fences += 1
                up = True
            elif kind == "unfence":
                up = False
    return fences, changes, behind


def _records(bootstrap: str, topic: str, last: str) -> Iterator[dict[str, dict[str, object]]]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "test",
            "enable.auto.commit": "false",
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    deadline = time.monotonic() + 120
    try:
        while True:
            assert time.monotonic() < deadline, "the last marker did not arrive"
            for message in consumer.consume(2000, 0.5):
                assert message.error() is None
                raw = message.value() or b"{}"
                yield json.loads(raw)
                if last.encode() in raw:
                    return
    finally:
        consumer.close()


@contextmanager
def bank(dsn: str) -> Iterator[str]:
    """The schema of this database, and a role of its own for as long as the block lasts."""
    role = f"bank_{secrets.token_hex(4)}"
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(TARGET.encode())
        conn.execute(SOURCE.format(role=role).encode())
    try:
        yield role
    finally:
        with psycopg.connect(dsn, autocommit=True) as conn, suppress(psycopg.Error):
            conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
