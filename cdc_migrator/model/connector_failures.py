"""Failures of a connector that tell what to do about them, found in its trace. Pure.

Most do not: then the trace's own words are all there is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SIZE = re.compile(r"The message is (\d+) bytes when serialized which is larger than (the total)?")
_BROKER = re.compile(
    r"larger than the max message size the server will accept|RecordTooLargeException",
    re.IGNORECASE,
)
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a connector failed, in the form of an error."""

    code: str
    cause: str
    remedy: str

    def as_dict(self) -> dict[str, str]:
        """The machine-readable form."""
        return {"code": self.code, "cause": self.cause, "remedy": self.remedy}


def failure(trace: str | None) -> Failure | None:
    """What a trace is known to mean."""
    found = _SIZE.search(trace or "")
    if found is not None:
        return _beyond_the_worker(int(found[1]), bool(found[2]))
    if _BROKER.search(trace or ""):
        return Failure(
            "CDCM-CONNECTOR-RECORD-SIZE",
            "a change is larger, compressed, than the brokers or the topic accept; the connector "
            "stopped in front of it, and the source keeps its log",
            "Raise max.message.bytes of the topic, with several brokers their "
            "replica.fetch.max.bytes as well; then type `cdc-migrator capture start`.",
        )
    return None


def _beyond_the_worker(size: int, buffer: bool) -> Failure:
    setting = "buffer.memory" if buffer else "max.request.size"
    # Room for the next ones, which may be larger still.
    enough = 1 << (size * 5 // 4 - 1).bit_length()
    return Failure(
        "CDCM-CONNECTOR-RECORD-SIZE",
        f"a change of {size:,} bytes is larger than the connector's producer.override.{setting} "
        "allows; it stopped in front of it, and the source keeps its log",
        f"Set producer.override.max.request.size and producer.override.buffer.memory in "
        f"capture.connector to {enough} ({enough // _MIB} MiB) or more, see that the worker's heap "
        "has room for some such changes, and type `cdc-migrator capture start`.",
    )
