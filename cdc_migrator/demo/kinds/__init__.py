"""Every kind of transaction that the shop's application makes, by name.

A kind changes rows in the open transaction and returns whether it changed what its name says.
False means that nothing suitable was found: the caller rolls back, and nothing is counted.
"""

from cdc_migrator.demo.kinds import keyless, keys, rows, sales
from cdc_migrator.demo.kinds.pen import Bounds, Kind, Pen, read_bounds

__all__ = ["KINDS", "Bounds", "Kind", "Pen", "read_bounds"]

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (*rows.KINDS, *keys.KINDS, *sales.KINDS, *keyless.KINDS)
}
