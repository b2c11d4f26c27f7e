"""The rows of a COPY to us, as blocks of bytes: by libpq's own interface, with no object for each.

psycopg makes an object of every row, and the driver's reader passes each through a generator, which
costs more than both servers together. The library in C takes them from the very libpq that psycopg
brings (https://www.postgresql.org/docs/current/libpq-copy.html). Where it is not there, Python does
the same at a fraction of the speed.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Iterator
from ctypes import CDLL, Array, c_int64, c_void_p, string_at
from typing import Any

import psycopg
from psycopg import pq

from cdc_migrator.native.library import addresses, library

# Each write to the other server's socket takes this much: one row a write is several times slower.
_BLOCK = 256 * 1024
_PATIENCE_MS = 1000
_LOST = -2
# In the order of `functions` in copied.c.
_CALLED = ("PQgetCopyData", "PQconsumeInput", "PQsocket", "PQfreemem")


def blocks(connection: pq.abc.PGconn) -> Iterator[tuple[int, bytes]]:
    """(rows, bytes) of each block, until the server has sent the last; a session in COPY OUT.

    A row's bytes may lie in one block only. Nothing for a second: a block of no rows. Whether all
    came is to be asked of the connection's next result.

    Raises psycopg.Error, MemoryError.
    """
    called = _libpq()
    return _gathered(connection, called) if called is not None else _one_by_one(connection)


def _libpq() -> Array[c_void_p] | None:
    """Where the functions are that the library calls; None where one of the two is not there."""
    # Of psycopg's implementations the one in Python has libpq from ctypes, and is no library.
    loaded = sys.modules[pq.PGconn.__module__].__file__
    if library() is None or loaded is None:
        return None
    try:
        return addresses(CDLL(loaded), _CALLED)
    except (OSError, AttributeError):
        return None


def _gathered(connection: Any, called: Array[c_void_p]) -> Iterator[tuple[int, bytes]]:
    lib = library()
    assert lib is not None
    handle = lib.cdcm_copied_new(called)
    if not handle:
        raise MemoryError
    told = (c_int64 * 3)()
    try:
        more = 1
        while more:
            more = lib.cdcm_copied(handle, connection.pgconn_ptr, _BLOCK, _PATIENCE_MS, told)
            if more == _LOST:
                raise psycopg.OperationalError("the connection was lost")
            if more < 0:
                raise MemoryError
            length, rows, place = told
            yield rows, string_at(place, length) if length else b""
    finally:
        lib.cdcm_copied_free(handle)


def _one_by_one(connection: pq.abc.PGconn) -> Iterator[tuple[int, bytes]]:
    poll = select.poll()
    poll.register(connection.socket, select.POLLIN)
    pieces: list[bytes] = []
    held = 0
    while True:
        length, data = connection.get_copy_data(1)
        if length > 0:
            pieces.append(bytes(data))
            held += length
            if held < _BLOCK:
                continue
        elif length == 0 and poll.poll(_PATIENCE_MS):
            connection.consume_input()
            continue
        yield len(pieces), b"".join(pieces)
        pieces, held = [], 0
        if length < 0:
            return
