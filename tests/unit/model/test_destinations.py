"""Which entries of a mapping speak of a table, and where they lead."""

from __future__ import annotations

from cdc_migrator.model.destinations import destinations, entries
from cdc_migrator.model.mapping import Wanted
from cdc_migrator.model.tables import ReplicaIdentity, Table, TableName

ITEM, ORDER = TableName("shop", "item"), TableName("shop", "order")
SPLIT = (Wanted("shop.item", "crm.thing"), Wanted("shop.item", "crm.part"))
WANTED = (*SPLIT, Wanted("shop.*", "crm.*"), Wanted("log.*"))


def test_a_table_of_its_own_name_is_none_of_its_schemas() -> None:
    """Several entries of one name split it; nothing is said of other schemas."""
    assert entries(WANTED, ITEM) == list(SPLIT)
    assert entries(WANTED, ORDER) == [WANTED[2]]
    assert entries(WANTED, TableName("else", "item")) == []


def table(name: TableName, root: TableName | None = None) -> Table:
    return Table(name, (), (), ReplicaIdentity.DEFAULT, root, 0, 0)


def test_each_table_goes_where_its_entries_say() -> None:
    """A whole schema by its tables' names; without a word to the same name."""
    event = TableName("log", "event")

    found = destinations(WANTED, map(table, [ITEM, ORDER, event, TableName("else", "item")]))

    assert found == {
        ITEM: [TableName("crm", "thing"), TableName("crm", "part")],
        ORDER: [TableName("crm", "order")],
        event: [event],
    }


def test_partitions_go_where_their_table_goes() -> None:
    """Unless they are named themselves; of a schema's entry each has its own name."""
    sale, first, second = (TableName("shop", name) for name in ("sale", "sale_1", "sale_2"))
    parts = [table(first, sale), table(second, sale)]
    whole = Wanted("shop.sale", "crm.sold")

    assert destinations([whole, Wanted("shop.sale_2", "crm.other"), WANTED[2]], parts) == {
        first: [TableName("crm", "sold")],
        second: [TableName("crm", "other")],
    }
    assert destinations([Wanted("shop.sale", drop=("x",))], parts) == {
        first: [sale],
        second: [sale],
    }
    assert destinations(WANTED, parts)[first] == [TableName("crm", "sale_1")]
