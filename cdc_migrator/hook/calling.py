"""Find the function of a route's hook, run it over rows, and see that what it gives is usable.

It may be run by several threads, in several processes, and over the same rows again at any time:
by who loads, applies, compares and repairs. Of its failures the kind and the place are told, never
its message, which may quote a value.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from cdc_migrator.errors import ConfigurationError, Refused
from cdc_migrator.model.mapping import Route
from cdc_migrator.model.tables import TableName

# Of one row, what the hook reads or gives: texts as PostgreSQL writes and reads them.
Cells = tuple[str | None, ...]
# Rows that the function is handed at a time, at most.
BATCH = 2048

_Function = Callable[[list[dict[str, str | None]]], Iterable[Mapping[str, str | None]]]
_lock = threading.Lock()
# What the modules' files were when they were imported.
_imported: dict[str, str] = {}


class HookRefused(Refused):
    """The function failed on rows, or gave what is of no use; `why` says how, without values."""

    def __init__(self, code: str, table: TableName, call: str, why: str) -> None:
        super().__init__(
            code,
            f"{table}: the hook {call} {why}",
            f"`cdc-migrator transform check {table}` counts such rows. Where the function is "
            "corrected before anything was loaded, run the same command again; a migration that is "
            "under way keeps the function that it was begun with: `cdc-migrator abort`, then "
            "`cdc-migrator migrate`.",
        )
        self.why = why


def look_in(directory: Path) -> None:
    """Have modules found in a directory as well; what is found without it wins."""
    if str(directory) not in sys.path:
        sys.path.append(str(directory))


def digest(call: str) -> str:
    """What tells the file of a hook's module from another one. Raises as `Caller`."""
    with _lock:
        return _found(call)[1]


class Caller:
    """The function of a route's hook.

    Raises:
        ConfigurationError: CDCM-MAPPING-HOOK: it cannot be found.
        Refused: CDCM-MAPPING-CHANGED: its module is not what it was when the route was worked out.
    """

    def __init__(self, route: Route) -> None:
        assert route.hook is not None
        hook = route.hook
        with _lock:
            self._function, now, self._file = _found(hook.call)
            imported = _imported[_module(hook.call)]
        if not hook.digest == now == imported:
            raise Refused(
                "CDCM-MAPPING-CHANGED",
                f"{self._file.name} with the hook {hook.call} of {route.source} is not what it was "
                "when the migration was begun, or when this process read it: what is on the target "
                "was made by the former one",
                "Put the file back as it was. For another function begin anew: `cdc-migrator "
                "abort`, empty or drop the target's tables, then `cdc-migrator migrate`.",
            )
        self._call = hook.call
        self._table = route.source
        self._reads = tuple(one.name for one in hook.reads)
        self._gives = hook.gives
        self._cells: Callable[[Mapping[str, str | None]], Cells] = itemgetter(*hook.gives)
        if len(hook.gives) == 1:
            (only,) = hook.gives
            self._cells = lambda made: (made[only],)

    def run(self, rows: Sequence[Cells]) -> list[Cells]:
        """What it gives for each of the rows.

        Raises HookRefused: CDCM-MAPPING-HOOK-FAILED, CDCM-MAPPING-HOOK-RESULT.
        """
        return list(
            chain.from_iterable(
                self._batch(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)
            )
        )

    def same_again(self, rows: Sequence[Cells]) -> bool:
        """Whether it gives the same for the same rows: once more, and for each of them alone.

        Raises as `run`.
        """
        first = self.run(rows)
        alone = [cells for row in reversed(rows) for cells in self.run([row])]
        return self.run(rows) == first and alone[::-1] == first

    def _batch(self, rows: Sequence[Cells]) -> list[Cells]:
        reads = self._reads
        try:
            made = list(self._function([dict(zip(reads, row, strict=False)) for row in rows]))
        except Exception as exc:
            raise self._refused(
                "CDCM-MAPPING-HOOK-FAILED", f"fails: {_place(exc, self._file)}"
            ) from None
        if len(made) != len(rows):
            raise self._refused(
                "CDCM-MAPPING-HOOK-RESULT", f"gives {len(made)} results for {len(rows)} rows"
            )
        try:
            cells = list(map(self._cells, made))
        except KeyError:
            lacking = next(name for one in made for name in self._gives if name not in one)
            raise self._refused(
                "CDCM-MAPPING-HOOK-RESULT", f"gives no {lacking} for some row"
            ) from None
        except (TypeError, IndexError, AttributeError):
            raise self._refused(
                "CDCM-MAPPING-HOOK-RESULT", "gives something that is no dict for a row"
            ) from None
        texts = list(chain.from_iterable(cells))
        if other := next(iter(set(map(type, texts)) - _TEXTS), None):
            raise self._refused(
                "CDCM-MAPPING-HOOK-RESULT", f"gives {other.__name__} where a str or None is due"
            )
        if not _storable("".join(filter(None, texts))):
            raise self._refused(
                "CDCM-MAPPING-HOOK-RESULT", "gives a text that PostgreSQL cannot hold"
            )
        return cells

    def _refused(self, code: str, why: str) -> HookRefused:
        return HookRefused(code, self._table, self._call, why)


_TEXTS = frozenset({str, type(None)})


def _storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _module(call: str) -> str:
    return call.partition(":")[0]


def _found(call: str) -> tuple[_Function, str, Path]:
    """The function, its module's file as it is now by its digest, and its path."""
    name, _, function = call.partition(":")
    try:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.has_location or spec.origin is None:
            raise _missing(call, f"there is no module {name}")
        path = Path(spec.origin)
        now = hashlib.sha256(path.read_bytes()).hexdigest()
        module: Any = importlib.import_module(name)
    except Exception as exc:
        if isinstance(exc, ConfigurationError):
            raise
        raise _missing(call, f"importing {name} fails: {_place(exc, None)}") from None
    _imported.setdefault(name, now)
    found = getattr(module, function, None)
    if not callable(found):
        raise _missing(call, f"{path.name} has no function {function}")
    return found, now, path


def _missing(call: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        "CDCM-MAPPING-HOOK",
        f"the hook {call} cannot be used: {why}",
        "Put its module beside migration.yaml, or into a directory that PYTHONPATH names, and see "
        'that it can be imported alone (`python -c "import …"`).',
    )


def _place(exc: Exception, file: Path | None) -> str:
    """``ValueError at phones.py:12``: the last line of the module's, else the last one at all."""
    frames = traceback.extract_tb(exc.__traceback__)
    own = [one for one in frames if file is not None and Path(one.filename) == file]
    last = (own or frames)[-1]
    return f"{type(exc).__name__} at {Path(last.filename).name}:{last.lineno}"
