"""Whether the service of this configuration is alive, for a container's own health check.

`python -m cdc_migrator.cli.alive` asks `/livez` where `run` serves it, and says so by its exit
code alone, which is all that an engine looks at: 0 alive, 1 not. An image needs no curl then, and
a port that was changed in migration.yaml is the port that is asked.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

from cdc_migrator.errors import MigratorError

_SECONDS = 4.0
_ANY = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}


def address(host: str, port: int) -> str:
    """Where `/livez` is asked from inside, also where the service listens on every address."""
    reached = _ANY.get(host, host)
    return (
        f"http://[{reached}]:{port}/livez" if ":" in reached else f"http://{reached}:{port}/livez"
    )


def main() -> int:
    """The exit code; what is wrong goes to stderr, which `docker inspect` shows."""
    from cdc_migrator.config.loader import load

    try:
        service = load().service
        if not service.http_port:
            sys.stderr.write("service.http_port names no port to ask\n")
            return 1
        # A proxy of the environment has no business with loopback.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(address(service.http_host, service.http_port), timeout=_SECONDS):
            return 0
    except MigratorError as error:
        sys.stderr.write(f"{error.code}: {error.cause}\n")
    except OSError as error:
        # A refused connection, a time limit, and an answer of 503: all of them OSErrors.
        sys.stderr.write(f"not alive: {error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
