"""What becomes of partitions, with the statements for the target."""

from __future__ import annotations

from typing import Any

import pytest

from cdc_migrator.model.described import Described
from cdc_migrator.service import altering
from cdc_migrator.service.alteration import Change, Kind
from tests.unit.service.test_altering import table

LOW, HIGH = "FOR VALUES FROM (0) TO (10)", "FOR VALUES FROM (0) TO (99)"
DAY, YEAR, LOG = [7, "shop", "day", LOW], [8, "shop", "year", None], [9, "shop", "log", None]
DETACH = "ALTER TABLE shop.year DETACH PARTITION"


def partition(*ancestors: list[Any], bound: str | None = LOW, **more: Any) -> Described:
    """A table that is a partition of the first of these, which is one of the second, and so on."""
    root = ancestors[-1][2] if ancestors else None
    schema = "shop" if ancestors else None
    own = bound if ancestors else None
    return table(root=root, root_schema=schema, ancestors=list(ancestors), bound=own, **more)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (
            partition(YEAR),
            partition(),
            [("partition detached: shop.item", (f"{DETACH} shop.item",), True)],
        ),
        (
            partition(YEAR),
            partition(name="old"),
            [
                ("table renamed", ("ALTER TABLE shop.item RENAME TO old",), True),
                ("partition detached: shop.old", (f"{DETACH} shop.old",), True),
            ],
        ),
        (
            partition(DAY, YEAR),
            partition([*DAY[:3], None]),
            [("partition detached: shop.day", (f"{DETACH} shop.day",), True)],
        ),
        (
            partition(),
            partition(DAY, YEAR),
            [
                (
                    "partition attached: shop.item (shop.day)",
                    (f"ALTER TABLE shop.day ATTACH PARTITION shop.item {LOW}",),
                    False,
                )
            ],
        ),
        (
            partition(YEAR),
            partition(LOG),
            [
                ("partition detached: shop.item", (f"{DETACH} shop.item",), True),
                (
                    "partition attached: shop.item (shop.log)",
                    (f"ALTER TABLE shop.log ATTACH PARTITION shop.item {LOW}",),
                    False,
                ),
            ],
        ),
        (
            partition(YEAR),
            partition(YEAR, bound=HIGH),
            [
                (
                    "partition bound changed: shop.item",
                    (
                        f"{DETACH} shop.item",
                        f"ALTER TABLE shop.year ATTACH PARTITION shop.item {HIGH}",
                    ),
                    True,
                )
            ],
        ),
        (partition(YEAR), partition([8, "shop", "decade", None]), []),
    ],
)
def test_what_became_of_a_partition(
    before: Described, after: Described, told: list[tuple[str, tuple[str, ...], bool]]
) -> None:
    """Detached it must be on the target, too; a part of more it may become later."""
    found = altering.changes(before, after, ())
    assert [(one.statements, one.needed) for one in found] == [(s, n) for _, s, n in told]
    assert all(str(one).startswith(text) for one, (text, _, _) in zip(found, told, strict=True))
    target = partition(*([*one, ""][:4] for one in before.document["ancestors"]))
    moved = [one for one in found if one.kind is not Kind.TABLE_RENAMED]
    assert not any(altering.met(one, target) for one in moved)
    assert all(altering.met(one, after) for one in moved)


def test_a_target_that_is_not_partitioned_lacks_nothing_of_a_detachment() -> None:
    """Its table is one of its own already."""
    [detached] = altering.changes(partition(YEAR), partition(), ())
    assert altering.met(detached, partition())
    assert not altering.met(detached, None)


def test_a_partition_that_is_dropped_leaves_the_table_that_it_is_part_of() -> None:
    """Not the outermost one."""
    assert altering.dropped(partition(DAY, YEAR)).statements == (
        "ALTER TABLE shop.day DETACH PARTITION shop.item",
    )


def test_what_an_earlier_release_has_noted_is_enough() -> None:
    """It knew the outermost table, and no bounds."""
    noted = table(root="year", root_schema="shop")

    def kinds(after: Described) -> list[Kind]:
        found: list[Change] = altering.changes(noted, after, ())
        return [one.kind for one in found]

    assert noted.same(partition(YEAR))
    assert kinds(partition(YEAR)) == []
    assert kinds(partition(DAY, YEAR)) == []
    assert kinds(partition()) == [Kind.PARTITION_DETACHED]
