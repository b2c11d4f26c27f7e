"""Led to a snapshot: what it sees is applied, the rest waits, and nothing is lost on the way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cdc_migrator.apply.batcher import Batch
from cdc_migrator.apply.holding import Holding
from cdc_migrator.model.changes import Change, Op, Transaction
from cdc_migrator.model.positions import Snapshot
from cdc_migrator.model.tables import TableName

ROW = Change(TableName("s", "t"), Op.INSERT, b"", None, b"{}", 1)


def marker(token: str) -> Change:
    row = b'{"id":1,"migration":"m","kind":"barrier","token":"%s"}' % token.encode()
    return Change(TableName("cdc_migrator", "marker"), Op.INSERT, b"", None, row, 1)


MARKER, STRANGE = marker("mine"), marker("other")


def transaction(place: int, xid: int, change: Change = ROW) -> Transaction:
    """At the given place of the stream; commit positions are 100 and more."""
    return Transaction(xid, 1, 100 + place, 1, [change], 10 * place, 10 * place + 9, bytes=1)


def batch(*transactions: Transaction) -> Batch:
    last = transactions[-1]
    return Batch(transactions, last.next_offset, last.commit_lsn, redelivered=1)


def holding(snapshot: str) -> Holding:
    return Holding(Snapshot.parse(snapshot), "mine", commit_position=99)


def xids(*batches: Batch | None) -> list[int]:
    return [one.xid for b in batches if b is not None for one in b.transactions]


def test_a_batch_that_the_snapshot_sees_passes_as_it_is() -> None:
    """Also its positions."""
    whole = batch(transaction(0, 5), transaction(1, 6))
    assert holding("10:10:").take(whole) == ([whole], False)


def test_what_is_not_seen_waits_and_the_position_stays_in_front_of_it() -> None:
    """What comes behind it and is seen is applied ahead, and listed."""
    way = holding("5:20:6")
    now, reached = way.take(batch(*(transaction(n, xid) for n, xid in enumerate([4, 5, 6, 7, 8]))))
    assert not reached
    plain, ahead = now
    assert xids(plain) == [4, 5]
    assert (plain.next_offset, plain.commit_position, plain.ahead) == (20, 101, ())
    assert xids(ahead) == [7, 8]
    assert (ahead.next_offset, ahead.commit_position, ahead.ahead) == (20, 101, (103, 104))
    first, second = ahead.halves()
    assert [(b.next_offset, b.commit_position, b.ahead) for b in (first, second)] == [
        (20, 101, (103,)),
        (20, 101, (104,)),
    ]
    later, _ = way.take(batch(transaction(5, 9)))
    assert [(b.next_offset, b.commit_position, b.ahead) for b in later] == [(20, 101, (105,))]


def test_behind_the_marker_what_was_held_goes_first() -> None:
    """Then the marker's transaction and what follows, up to the end of what was read."""
    way = holding("5:8:6")
    way.take(batch(transaction(0, 6), transaction(1, 7)))
    now, reached = way.take(
        batch(
            transaction(2, 4),
            transaction(3, 30, STRANGE),
            transaction(4, 31, MARKER),
            transaction(5, 32),
        )
    )
    assert reached
    assert xids(*now) == [4]
    rest = way.rest()
    assert rest is not None
    assert xids(rest) == [6, 30, 31, 32]
    assert (rest.next_offset, rest.commit_position, rest.ahead) == (59, 105, ())
    assert rest.redelivered == 2


@given(st.data())
def test_every_transaction_is_applied_once_and_what_is_seen_comes_first(
    data: st.DataObject,
) -> None:
    """Whatever the order and the batches; a position never claims what is not applied."""
    count = data.draw(st.integers(1, 12))
    order = data.draw(st.permutations(range(5, 5 + count)))
    xip = data.draw(st.sets(st.sampled_from(order)))
    stream = [transaction(n, xid) for n, xid in enumerate(order)]
    stream.append(transaction(count, 100, MARKER))
    stream.append(transaction(count + 1, 101))
    way = holding(f"5:{5 + count}:{','.join(map(str, sorted(xip)))}")
    applied: list[Transaction] = []
    left = stream
    while left:
        size = data.draw(st.integers(1, len(left)))
        part, left = batch(*left[:size]), left[size:]
        now, reached = way.take(part)
        for one in now:
            applied += one.transactions
            held = {t.commit_lsn for t in stream} - {t.commit_lsn for t in applied}
            assert all(c > one.commit_position for c in held)
            beyond = {t.commit_lsn for t in applied if t.commit_lsn > one.commit_position}
            assert beyond >= set(one.ahead)
            assert all(t.first_offset >= one.next_offset for t in stream if t.commit_lsn in held)
        if reached:
            assert {t.xid for t in applied} == set(order) - xip
            rest = way.rest()
            assert rest is not None
            applied += [*rest.transactions, *left]
            break
    assert sorted(t.commit_lsn for t in applied) == [t.commit_lsn for t in stream]
