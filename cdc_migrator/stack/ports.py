"""Free TCP ports on loopback that stay free while their owner restarts."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from cdc_migrator.errors import Failed

HOST = "127.0.0.1"
LOWEST, HIGHEST = 20_000, 32_767
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def choose(count: int) -> list[int]:
    """``count`` different ports that nobody listens on.

    Taken below the range that the kernel gives to outgoing connections: a client that keeps
    dialling a dead broker's port could otherwise be given that very port as its own end, and
    the broker could not come back.
    """
    highest = min(HIGHEST, _first_ephemeral() - 1)
    span = range(LOWEST if highest - LOWEST > 1000 else 1024, highest + 1)
    chosen: list[int] = []
    for port in random.SystemRandom().sample(span, k=min(len(span), 2000)):
        if is_free(port):
            chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise Failed(
        "CDCM-STACK-PORT",
        f"no {count} free ports on loopback between {span.start} and {span.stop - 1}",
        "end programs that are no longer needed and try again",
    )


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as attempt:
        # Connections of an earlier life that linger in TIME_WAIT do not hinder a server.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((HOST, port))
        except OSError:
            return False
        return True


def answers(port: int, timeout: float = 0.5) -> bool:
    """Whether somebody accepts connections on ``port``."""
    try:
        socket.create_connection((HOST, port), timeout).close()
    except OSError:
        return False
    return True


def _first_ephemeral() -> int:
    try:
        return int(EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return HIGHEST + 1
