"""The library built from the C files beside this one, and the types of its functions.

The global lock is free while one of them runs. Everything it is given must stay where it is until
it returns, and blocks until a fold that took of them is done.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_char_p, c_int64, c_void_p
from functools import cache
from hashlib import sha256
from pathlib import Path

SOURCES = Path(__file__).parent
# Not .so: what ends so, Python takes for a module.
PATH = SOURCES / "kernel.native"

# Numbers that an event has: `event` in scan.h.
FIELDS = 14
# Numbers that a run has: `run` in scan.c.
RUN_FIELDS = 17

ODD, BEGIN, END, ROW, WHOLE = range(5)
WRITTEN, FULL, UNCHANGED, UNLIKE, MEMORY, NOT_STRAIGHT = range(6)
ROW_STAGED, ROW_STRAIGHT, ROW_KEY = range(3)


def digest() -> str:
    """Of the C files; a library that was built from others is not used."""
    found = sha256()
    for path in sorted(SOURCES.glob("*.[ch]")):
        found.update(path.read_bytes())
    return found.hexdigest()


def addresses(loaded: ctypes.CDLL, names: Sequence[str]) -> ctypes.Array[c_void_p]:
    """Where these functions of another library are, for C to call. Raises AttributeError."""
    functions = (ctypes.cast(getattr(loaded, name), c_void_p) for name in names)
    return (c_void_p * len(names))(*functions)


_Functions = {
    "cdcm_fetcher_new": (c_void_p, (c_void_p, c_int64)),
    "cdcm_fetcher_queue": (None, (c_void_p, c_void_p)),
    "cdcm_fetcher_free": (None, (c_void_p,)),
    "cdcm_fetch": (c_int64, (c_void_p, c_int64, c_int64, c_int64, c_void_p)),
    "cdcm_copied_new": (c_void_p, (c_void_p,)),
    "cdcm_copied_free": (None, (c_void_p,)),
    "cdcm_copied": (c_int64, (c_void_p, c_void_p, c_int64, c_int64, c_void_p)),
    "cdcm_notes": (c_void_p, (c_void_p, c_void_p)),
    "cdcm_records_new": (c_int64, (c_void_p, c_int64, c_int64, c_int64, c_int64)),
    "cdcm_records_free": (None, (c_void_p,)),
    "cdcm_names_new": (c_void_p, ()),
    "cdcm_names_free": (None, (c_void_p,)),
    "cdcm_names_count": (c_int64, (c_void_p,)),
    "cdcm_name": (c_void_p, (c_void_p, c_int64, c_void_p, c_void_p)),
    "cdcm_scan": (None, (c_void_p, c_void_p, c_void_p)),
    "cdcm_runs": (c_int64, (c_void_p, c_void_p, c_void_p)),
    "cdcm_layout_new": (
        c_void_p,
        (c_char_p, c_int64, c_void_p, c_void_p, c_char_p, c_char_p),
    ),
    "cdcm_layout_free": (None, (c_void_p,)),
    "cdcm_fold_new": (c_void_p, (c_int64,)),
    "cdcm_fold_free": (None, (c_void_p,)),
    "cdcm_fold_take": (
        c_int64,
        (
            c_void_p,
            c_void_p,
            c_void_p,
            c_int64,
            c_int64,
            c_char_p,
            c_void_p,
            c_void_p,
        ),
    ),
    "cdcm_fold_touched": (c_int64, (c_void_p, c_void_p)),
    "cdcm_fold_table": (c_int64, (c_void_p, c_int64, c_int64, c_void_p)),
    "cdcm_fold_write": (
        c_int64,
        (
            c_void_p,
            c_int64,
            c_int64,
            c_void_p,
            c_char_p,
            c_int64,
            c_char_p,
            c_int64,
            c_void_p,
            c_int64,
            c_void_p,
            c_void_p,
        ),
    ),
    "cdcm_fold_changes": (c_int64, (c_void_p, c_int64, c_int64, c_void_p, c_int64)),
}


@cache
def library() -> ctypes.CDLL | None:
    """The library; None where it was not built, or was built from other files."""
    try:
        loaded = ctypes.CDLL(str(PATH))
        loaded.cdcm_digest.restype = c_char_p
        if loaded.cdcm_digest() != digest().encode():
            return None
    except (OSError, AttributeError):
        return None
    for name, (result, arguments) in _Functions.items():
        function = getattr(loaded, name)
        function.restype = result
        function.argtypes = arguments
    return loaded
