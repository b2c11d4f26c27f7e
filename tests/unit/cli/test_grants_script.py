"""`init --grants` prints what each role needs and no more, on plain and on managed servers."""

from __future__ import annotations

import re

import pytest

from cdc_migrator.cli.grants import Managed, Script
from cdc_migrator.control import access
from cdc_migrator.databases.postgres.grants import Kind, Owned, There, each_once, needed
from cdc_migrator.model.logins import Role
from cdc_migrator.model.tables import TableName

WHO = {role: f"cdcm_{role}" for role in Role} | {Role.CUTOVER: "boss"}
KEPT = ("captured", "fence", "heartbeat", "journal", "marker", "side_0af", "stream_progress")


def owned(name: str, owner: str, oid: int = 1) -> Owned:
    return Owned(name, ".".join(f'"{part}"' for part in name.split(".")), oid, owner)


def there(secured: bool = False, superuser: str = "postgres") -> There:
    table = TableName("shop", 'or"der')
    return There(
        database=owned("shop", "postgres"),
        schemas={"shop": owned("shop", "app")},
        tables={table: owned(str(table), "app")},
        secured=frozenset([table] if secured else []),
        control=owned("cdc_migrator", "boss"),
        kept={name: owned(f"cdc_migrator.{name}", "boss") for name in KEPT},
        roles=frozenset(["boss", "app"]),
        superusers=frozenset([superuser]),
    )


def script(managed: Managed, secured: bool = False) -> Script:
    found = there(secured)
    grants = needed("source", WHO, found, access.kept(KEPT))
    made = tuple(user for user in WHO.values() if user not in found.roles)
    return Script("source", "db1:5432/shop", "shop", managed, WHO, made, tuple(grants), frozenset())


def rights(text: str, user: str) -> list[str]:
    """What the printed SQL gives a role, in its order."""
    return re.findall(rf'^((?:GRANT|ALTER) .*"{user}".*);', text, re.MULTILINE)


def test_the_connector_sees_no_table() -> None:
    """It replicates and beats, and that is all."""
    text = "\n".join(script(Managed.NONE).lines())
    assert rights(text, "cdcm_capture") == [
        'ALTER ROLE "cdcm_capture" LOGIN',
        'ALTER ROLE "cdcm_capture" REPLICATION',
        'GRANT CONNECT ON DATABASE "shop" TO "cdcm_capture"',
        'GRANT USAGE ON SCHEMA "cdc_migrator" TO "cdcm_capture"',
        'GRANT SELECT, UPDATE ON TABLE "cdc_migrator"."heartbeat" TO "cdcm_capture"',
    ]


def test_who_measures_sees_neither_rows_nor_the_token() -> None:
    """No table of the user's, no side table, not the fence."""
    text = "\n".join(rights("\n".join(script(Managed.NONE).lines()), "cdcm_monitor"))
    assert "pg_monitor" in text
    assert not re.search(r"side_|\.\"fence\"|shop\"\.|INSERT|UPDATE|DELETE", text)


def test_nobody_changes_the_journal() -> None:
    """Who works for the migration may add to it."""
    grants = needed("target", WHO, there(), access.kept(KEPT))
    held = {one.privilege for one in grants if one.object == "cdc_migrator.journal"}
    assert held == {"SELECT", "INSERT"}


def test_a_managed_service_grants_replication_in_its_own_way() -> None:
    """A membership on RDS, the attribute elsewhere; each says what it does not give."""
    rds, azure = (list(script(one).lines()) for one in (Managed.RDS, Managed.AZURE))
    assert 'GRANT rds_replication TO "cdcm_capture";' in rds
    assert not any("REPLICATION;" in line for line in rds)
    assert 'ALTER ROLE "cdcm_capture" REPLICATION;' in azure
    assert any("BYPASSRLS can be granted" in line for line in azure)
    told = script(Managed.CLOUDSQL).as_dict()
    assert "session_replication_role" in told["lost"][0]


@pytest.mark.parametrize("secured", [True, False])
def test_row_security_is_passed_where_there_is_any(secured: bool) -> None:
    """Else a session would fail, or rows would be missed."""
    found = [one for one in script(Managed.NONE, secured).grants if one.privilege == "BYPASSRLS"]
    assert [one.role for one in found] == ([Role.VERIFY] if secured else [])


def test_roles_are_made_once_and_read_only_where_they_only_read() -> None:
    """The script can be run again; a role that is there is left as it is."""
    text = "\n".join(script(Managed.NONE).lines())
    assert text.count("CREATE ROLE") == text.count("IF NOT EXISTS") == 4
    assert "SET default_transaction_read_only = on" in text
    assert "PASSWORD '" not in text


def test_a_superuser_and_an_owner_need_nothing() -> None:
    """What they may do by themselves is not printed."""
    alone = dict.fromkeys(Role, "postgres")
    assert needed("target", alone, there(), access.kept(KEPT)) == []
    owner = needed("target", dict.fromkeys(Role, "app"), there(), access.kept(()))
    assert not [one for one in owner if one.kind is Kind.TABLE or one.object == "app.shop"]


def test_tables_of_a_superuser_are_told() -> None:
    """Who is a member of it can become it."""
    found = there()
    grants = tuple(needed("source", WHO, found, access.kept(KEPT)))
    where = ("source", "db1:5432/shop", "shop", Managed.NONE, WHO, (), grants, frozenset())
    assert "-- app owns tables" not in "\n".join(Script(*where).lines())
    assert "-- app owns tables" in "\n".join(Script(*where, frozenset(["app"])).lines())


def test_a_right_is_listed_once() -> None:
    """Whatever it is needed for."""
    grants = needed("target", dict.fromkeys(Role, "one"), there(), access.kept(KEPT))
    assert len({one.key for one in grants}) == len(grants)
    assert each_once([*grants, *grants]) == grants
