"""What a failed connector says of rights that the worker's Kafka user lacks. Pure."""

from __future__ import annotations

import re

from cdc_migrator.clients.kafka import Right
from cdc_migrator.errors import Refused

_TOPICS = re.compile(r"Not authorized to (?:access topics: \[|describe topic\(s\) ')([^\]']+)")
_GROUP = re.compile(r"Not authorized to access group: (\S+)")
_TRANSACTIONS = re.compile(r"TransactionalIdAuthorizationException|[Tt]ransactional ?[Ii]d")


def lacking(trace: str, transactions: str) -> Refused | None:
    """The error for a connector that failed with this trace; None where it is no matter of rights.

    Args:
        transactions: the end of the name of its transactions.
    """
    if found := _TOPICS.search(trace):
        right = Right("Write", "topic", found[1])
    elif found := _GROUP.search(trace):
        right = Right("Read", "group", found[1].rstrip(".;"))
    elif "uthoriz" in trace and _TRANSACTIONS.search(trace):
        right = Right("Write", "transactional-id", f"<the worker's group.id>-{transactions}-0")
    else:
        return None
    return Refused(
        "CDCM-CONNECTOR-DENIED",
        f"the Kafka user of the Connect worker lacks {right}, which the connector needs",
        "Grant it (`cdc-migrator init --acls` prints all that are needed), then run the same "
        "command again; it restarts the connector.",
    )
