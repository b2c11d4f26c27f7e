"""Have the target fenced as the settings say, and tell where somebody had taken the fence off."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cdc_migrator.control import fence
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.tables import TableName


def fence_target(
    target_dsn: str, migration: str, wanted: bool, patience: float = fence.PATIENCE
) -> tuple[TableName, ...]:
    """See `control.fence.keep`. Raises, beside what that does, a server's error in coded form."""
    called = f"cdcm-{migration}-fence"
    with (
        connect(target_dsn, application_name=called, side="target") as conn,
        speaking("target", "fencing its tables"),
    ):
        return fence.keep(conn, migration, wanted, patience)


def tell_taken_off(tables: Sequence[TableName], tell: Callable[[str], None]) -> None:
    """Tell which tables were fenced, then were not, and are again; nothing where none was."""
    if tables:
        tell(f"fence: it was off on {', '.join(map(str, tables))}, and is up again")
