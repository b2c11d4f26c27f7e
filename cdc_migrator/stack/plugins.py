"""The connector's plugin, for a Connect worker that is not the local stack's.

`python -m cdc_migrator.stack.plugins DIRECTORY` unpacks the very archives that the local stack
runs with, verified against the jar lock, into a worker's plugin directory.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cdc_migrator.errors import MigratorError
from cdc_migrator.stack import jars, lock
from cdc_migrator.stack.progress import OnStderr, Talk


def unpack(directory: Path, repository: str | None, talk: Talk) -> None:
    """Fetch the locked plugins and unpack them. Raises as `jars.ensure`."""
    plugins = lock.read().plugins
    with tempfile.TemporaryDirectory(prefix="cdcm-plugins-") as scratch:
        places = jars.ensure(plugins, Path(scratch), repository, talk)
        for one in plugins:
            jars.unpack(places[one.coordinates], directory)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m cdc_migrator.stack.plugins", description=__doc__
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--jar-repository", help="as for `cdc-migrator stack up`")
    given = parser.parse_args(arguments)
    try:
        unpack(given.directory, given.jar_repository or None, OnStderr())
    except MigratorError as error:
        sys.stderr.write(f"{error.code}: {error.cause}\n{error.remedy}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
