"""`make prove-native`: the library in C beside Python over random and over spoiled records.

The library is built with gcc's sanitizers, which end the process at the first byte that is read or
written beside what belongs to it, and at anything else that C does not define. A run is a line of
``proofs/native.jsonl``; the first difference ends it with 1 and names its seeds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cdc_migrator.native import library
from tests.oracle import native
from tests.oracle.records import Writer, spoiled
from tests.support.results import Results

RESULTS = Results(Path("proofs/native.jsonl"))
_SANITIZERS = ("asan", "ubsan")
_BUILT = "CDCM_SANITIZED"


def main() -> int:
    """Compare for as long as told; 0 if nothing differed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    if _BUILT not in os.environ:
        return _sanitized(sys.argv[1:])
    library.PATH = Path(os.environ[_BUILT])
    assert library.library() is not None
    return prove(options.minutes)


def _sanitized(arguments: list[str]) -> int:
    """The same in a process with the sanitizers' libraries in front of all others."""
    sources = sorted(library.SOURCES.glob("*.c"))
    with tempfile.TemporaryDirectory(prefix="cdcm-prove-") as directory:
        built = Path(directory) / "kernel.native"
        subprocess.run(
            [
                *("gcc", "-std=c11", "-O1", "-g", "-fPIC", "-shared"),
                *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
                f'-DCDCM_DIGEST="{library.digest()}"',
                *map(str, sources),
                *("-o", str(built)),
            ],
            check=True,
        )
        named = [f"-print-file-name=lib{one}.so" for one in _SANITIZERS]
        found = [
            subprocess.run(["gcc", name], capture_output=True, text=True, check=True).stdout.strip()
            for name in named
        ]
        environment = {
            **os.environ,
            _BUILT: str(built),
            "LD_PRELOAD": " ".join(found),
            # Python itself leaves what it needs to the end of the process.
            "ASAN_OPTIONS": "detect_leaks=0",
            "PYTHONMALLOC": "malloc",
        }
        done = subprocess.run(
            [sys.executable, "-m", "tests.oracle.prove_native", *arguments],
            env=environment,
            check=False,
        )
    tell()
    return 0 if done.returncode == 0 else 1


def prove(minutes: float) -> int:
    """Compare, and add to the results; 1 where something differs."""
    began = time.monotonic()
    seed = max((line["first_seed"] + line["topics"] for line in RESULTS.stored()), default=1)
    line = {"first_seed": seed, "topics": 0, "records": 0, "in_blocks": 0, "outcome": "equal"}
    while time.monotonic() - began < minutes * 60:
        writer = Writer(seed)
        whole = writer.topic(40)
        for sent in (whole, spoiled(whole, seed), spoiled(whole[: len(whole) // 2], seed + 1)):
            for poll in (1 + seed % 60, 400):
                difference, in_blocks = native.compared(sent, poll)
                line["records"] += len(sent)
                line["in_blocks"] += len(sent) * in_blocks
                if difference is not None:
                    print(f"seed {seed}, {poll} at a time: {difference}")
                    line |= {"outcome": "differs", "failed_seed": seed}
                    RESULTS.append(line)
                    return 1
        seed += 1
        line["topics"] += 1
    RESULTS.append(line | {"seconds": round(time.monotonic() - began, 1)})
    return 0


def tell() -> None:
    """What all runs came to."""
    lines = RESULTS.stored()
    topics, records = (sum(line[what] for line in lines) for what in ("topics", "records"))
    wrong = sum(line["outcome"] != "equal" for line in lines)
    print(f"{len(lines)} runs, {topics} topics, {records} records compared, {wrong} runs differed")


if __name__ == "__main__":
    sys.exit(main())
