"""What comes: each case makes its tables, changes them, and says what it saw beside the memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import yaml

from tests.memory.scene import Scene
from tests.support.live import one, wait_for

_ORDERS = """
CREATE TABLE memory.orders (id bigint PRIMARY KEY, customer int NOT NULL, state text NOT NULL,
    total numeric(12,2) NOT NULL, placed timestamptz NOT NULL, paid boolean NOT NULL, note text);
INSERT INTO memory.orders SELECT n, n % 50000, 'new', n % 9999 + 0.5,
    timestamptz '2024-01-01' + n * interval '7 s', n % 2 = 0, repeat('note ', (n % 5)::int)
    FROM generate_series(0, {rows} - 1) n
"""
_KEYS = 1_000_000
_TABLES = 2_000
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that might take memory.

    Attributes:
        events: how many row events by default.
        made: SQL that makes the tables on the source; ``{rows}`` where it has orders.
        prove: changes them while `run` runs, or before.
    """

    told: str
    events: int
    made: str
    prove: Callable[[Scene], None]


def transaction(scene: Scene) -> None:
    """Three in five of the events insert a row, one updates it, one removes another."""
    part = scene.events // 5
    with scene.applying("peak"):
        scene.commit(
            "INSERT INTO memory.orders SELECT n, n % 50000, 'new', n % 9999 + 0.5, "
            "timestamptz '2024-01-01' + n * interval '7 s', true, 'in one transaction' "
            f"FROM generate_series(1000, {3 * part} + 999) n",
            f"UPDATE memory.orders SET total = total + 1 WHERE id BETWEEN 1000 AND {part} + 999",
            f"DELETE FROM memory.orders WHERE id BETWEEN {part} + 1000 AND {2 * part} + 999",
        )
        scene.applied()
    commits = one(
        scene.live.target, "SELECT count(DISTINCT xmin::text) FROM memory.orders WHERE id >= 1000"
    )
    assert commits == 1, f"it was applied in {commits} transactions"


def crowd(scene: Scene) -> None:
    """Transactions that just stay in memory, one after the other; all are there beforehand."""
    rows = 75_000
    scene.each(
        max(1, scene.events // rows),
        "INSERT INTO memory.orders SELECT n, n % 50000, 'new', n % 9999 + 0.5, "
        "timestamptz '2024-01-01' + n * interval '7 s', true, 'one of many' "
        f"FROM generate_series(one * {rows} + 1000, one * {rows} + {rows} + 999) n",
    )
    scene.captured()
    with scene.applying("peak"):
        scene.applied()


def rows(scene: Scene) -> None:
    """Rows of 16 MiB: plain, with a wide character, with line ends, and one that compresses well.

    Each is inserted, and then updated with its old row in the event.
    """
    texts = {
        "plain": f"{_noise(16)}",
        "wide": f"'😀' || {_noise(16)}",
        "lines": f"regexp_replace({_noise(16)}, '(.{{63}}).', E'\\\\1\\n', 'g')",
        "same": f"repeat('abcdefgh', {16 * _MIB // 8})",
    }
    made = [f"INSERT INTO memory.text VALUES ('{name}', {text})" for name, text in texts.items()]
    scene.commit(*made)
    count = max(8, scene.events // 2)
    kinds = "(ARRAY['plain', 'wide', 'lines', 'same'])[one % 4 + 1]"
    scene.each(
        count,
        f"INSERT INTO memory.document SELECT one, 0, body FROM memory.text WHERE name = {kinds}",
    )
    scene.each(count, "UPDATE memory.document SET changed = 1 WHERE id = one")
    scene.captured()
    with scene.applying("peak"):
        scene.applied()


def beyond(scene: Scene) -> None:
    """A change that is larger than the stream's limit stops the connector, and is not lost."""
    live = scene.live
    with scene.applying("peak"):
        scene.commit(f"INSERT INTO memory.document VALUES (1, 0, {_noise(40)})")
        scene.applied()
        # Old and new row are in one event.
        scene.commit("UPDATE memory.document SET changed = 1, body = body || '.' WHERE id = 1")
        scene.commit("INSERT INTO memory.document VALUES (2, 0, 'behind it')")

        def told() -> str:
            return ((live.status()["connector"] or {}).get("failure") or {}).get("code", "")

        code = wait_for("status tells why the connector does not run", told, 120, 1)
        scene.told["code"] = code
        document = yaml.safe_load(live.config.read_text())
        limit = str(128 * _MIB)
        document["capture"] = {
            "connector": {
                "producer.override.max.request.size": limit,
                "producer.override.buffer.memory": limit,
            }
        }
        live.config.write_text(yaml.safe_dump(document))
        # It does not compress, so the topic's limit is next.
        refused = live.cli("capture", "start", check=1).stderr
        assert "raise max.message.bytes of the topic" in refused.lower(), refused
        scene.set_topic("max.message.bytes", limit)
        live.cli("capture", "start")
        scene.applied()
    assert one(live.target, "SELECT count(*) FROM memory.document") == 2


def tables(scene: Scene) -> None:
    """Every table changes now and then; two thousand of them in turn."""
    rounds = max(1, scene.events // (2 * _TABLES))
    with scene.applying("peak"):
        for number in range(rounds):
            scene.each(
                _TABLES,
                "EXECUTE format('INSERT INTO memory.t%s VALUES (%s, %L)', one + 1, "
                f"{number} + 10, 'round {number}'); "
                "EXECUTE format('UPDATE memory.t%s SET note = note || %L WHERE id = 1', "
                "one + 1, '.')",
            )
        scene.applied()
        scene.told["metrics_bytes"] = scene.scrape()


def keys(scene: Scene) -> None:
    """A million keys, each of which changes again and again, far from its neighbours in the key."""
    each = 1_000
    scene.each(
        scene.events // each,
        "UPDATE memory.orders SET total = total + 1, state = 'n' || one % 7 WHERE id = ANY (ARRAY("
        f"SELECT (one::bigint * {each} + k) * 7919 % {_KEYS} FROM generate_series(0, {each - 1}) "
        "k))",
    )
    scene.captured()
    with scene.applying("peak"):
        scene.applied()


def backlog(scene: Scene) -> None:
    """What is waiting may be twenty times as much: it takes no more memory."""
    small = min(1_000_000, scene.events // 4)
    for name, events in (("peak_small", small), ("peak", scene.events)):
        scene.each(
            events // 10,
            "UPDATE memory.orders SET total = total + 1, paid = NOT paid WHERE id = ANY (ARRAY("
            f"SELECT (one::bigint * 10 + k) * 7919 % {_KEYS} FROM generate_series(0, 9) k))",
        )
        scene.captured()
        with scene.applying(name):
            scene.applied()
    scene.told["events_small"] = small


def _noise(mib: int) -> str:
    """SQL of a text of so many MiB that does not compress."""
    return (
        f"(SELECT string_agg(md5(n::text || clock_timestamp()::text), '') "
        f"FROM generate_series(1, {mib * _MIB // 32}) n)"
    )


_DOCUMENTS = """
CREATE TABLE memory.document (id int PRIMARY KEY, changed int NOT NULL, body text NOT NULL);
ALTER TABLE memory.document REPLICA IDENTITY FULL;
ALTER TABLE memory.document ALTER body SET STORAGE EXTERNAL;
CREATE TABLE memory.text (name text PRIMARY KEY, body text NOT NULL)
"""
_MANY = (
    "DO $$ BEGIN FOR n IN 1..{tables} LOOP "
    "EXECUTE format('CREATE TABLE memory.t%s (id int PRIMARY KEY, note text)', n); "
    "EXECUTE format('INSERT INTO memory.t%s VALUES (1, ''first'')', n); "
    "IF n % 100 = 0 THEN COMMIT; END IF; END LOOP; END $$"
)

CASES = {
    "transaction": Case(
        "one transaction of five million row events",
        5_000_000,
        _ORDERS.format(rows=1_000),
        transaction,
    ),
    "crowd": Case(
        "transactions of 60 MB, which just stay in memory, one after the other",
        1_500_000,
        _ORDERS.format(rows=1_000),
        crowd,
    ),
    "rows": Case("rows of 16 MiB, and both of an update in one event", 48, _DOCUMENTS, rows),
    "beyond": Case("a change larger than the stream's limit", 3, _DOCUMENTS, beyond),
    "tables": Case(
        "two thousand tables with a trickle each", 80_000, _MANY.format(tables=_TABLES), tables
    ),
    "keys": Case("a million keys, all of them hot", 3_000_000, _ORDERS.format(rows=_KEYS), keys),
    "backlog": Case(
        "a backlog, against a small one", 8_000_000, _ORDERS.format(rows=_KEYS), backlog
    ),
}
