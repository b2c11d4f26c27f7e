"""Roles: each kind of work has a login of its own, or the DSN's."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from cdc_migrator.config import reference
from cdc_migrator.config.loader import load
from cdc_migrator.model.logins import Role, login

TEXT = """\
name: shop
source:
  dsn: postgresql://owner:own@db1/shop
  sslmode: require
  sslcert: owner.crt
  roles:
    capture: {user: cdcm_capture, password_file: capture.password}
    verify: {user: cdcm_verify}
target: {dsn: "postgresql://owner@db2/shop"}
"""


@pytest.fixture
def source(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (workdir / "migration.yaml").write_text(TEXT)
    (workdir / "capture.password").write_text("captured\n")
    (workdir / "capture.password").chmod(0o600)
    monkeypatch.setenv("CDC_MIGRATOR_SOURCE__ROLES__VERIFY__PASSWORD", "verified")
    return load().source.dsn_with_password()


def who(dsn: str, role: Role) -> tuple[object, ...]:
    found = conninfo_to_dict(login(dsn, role))
    return tuple(found.get(key) for key in ("user", "password", "host", "dbname", "sslmode"))


def test_each_role_goes_in_as_itself(source: str) -> None:
    """With its own password, to where the DSN says."""
    place = ("db1", "shop", "require")
    assert who(source, Role.CAPTURE) == ("cdcm_capture", "captured", *place)
    assert who(source, Role.VERIFY) == ("cdcm_verify", "verified", *place)


def test_what_no_role_is_named_for_is_done_as_the_dsn_says(source: str) -> None:
    """With the DSN's own password and certificate, which no other role is given."""
    for role in (Role.APPLY, Role.MONITOR, Role.CUTOVER):
        assert who(source, role)[:2] == ("owner", "own")
    assert conninfo_to_dict(source)["sslcert"].endswith("owner.crt")
    assert "sslcert" not in conninfo_to_dict(login(source, Role.VERIFY))


def test_a_plain_connection_string_has_one_login(workdir: Path) -> None:
    """So that whoever has one only need not know of roles."""
    assert {login("postgresql://a@b/c", role) for role in Role} == {"postgresql://a@b/c"}


def test_cutover_replaces_the_login_of_the_dsn(source: str, workdir: Path) -> None:
    """All that nobody else is named for is then done as that role."""
    (workdir / "migration.yaml").write_text(TEXT + "  # nothing more\n")
    settings = load(None, {"source": {"roles": {"cutover": {"user": "boss"}}}})
    dsn = settings.source.dsn_with_password()
    assert conninfo_to_dict(dsn)["user"] == "boss"
    assert who(dsn, Role.APPLY)[0] == "boss"
    assert conninfo_to_dict(settings.source.own_dsn())["user"] == "owner"


def test_no_password_of_a_role_is_shown(source: str) -> None:
    """Neither in what `config show` prints nor in the settings' own form."""
    settings = load()
    for shown in (str(reference.redacted(settings)), repr(settings), str(settings.source)):
        assert "cdcm_verify" in shown
        assert "verified" not in shown
        assert "captured" not in shown
