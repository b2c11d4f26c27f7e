"""Every error that a user can meet: a stable code, a cause, a remedy and an exit code.

No value from a row and no password may enter a cause or a remedy. Codes read
``CDCM-<AREA>-<REASON>`` and never change their meaning once released; `docs/errors.md`
lists them.

    MigratorError
    ├── ConfigurationError   exit 2: the command line, migration.yaml or the environment
    ├── Refused              exit 3: retrying is useless until the remedy is done
    │   └── StreamHalted     exit 3: a record cannot be applied; carries its position
    ├── Fenced               exit 1: another process took the stream over
    └── Failed               exit 1: it was tried and did not work; trying again may
"""

from __future__ import annotations


class MigratorError(Exception):
    """Base of all errors that are shown to a user.

    Args:
        code: stable identifier, e.g. ``CDCM-SOURCE-UNREACHABLE``.
        cause: one sentence: what happened, without row values or secrets.
        remedy: what to do about it, ideally a command to type.
    """

    exit_code = 1

    def __init__(self, code: str, cause: str, remedy: str) -> None:
        super().__init__(f"{code}: {cause}")
        self.code = code
        self.cause = cause
        self.remedy = remedy

    def as_dict(self) -> dict[str, str]:
        """The machine-readable form: code, cause and remedy."""
        return {"code": self.code, "cause": self.cause, "remedy": self.remedy}


class ConfigurationError(MigratorError):
    """The command line, the configuration file or the environment is wrong."""

    exit_code = 2


class Refused(MigratorError):
    """Not done on purpose; the same command will be refused again until the remedy is done."""

    exit_code = 3


class Failed(MigratorError):
    """Tried and did not work; the same command may work later."""

    exit_code = 1


class Fenced(Failed):
    """Another process owns the stream now; whatever this one has buffered is worthless."""

    def __init__(self, cause: str) -> None:
        super().__init__(
            "CDCM-STREAM-FENCED",
            cause,
            "Leave the other process to its work, or stop it and start this one again.",
        )


class StreamHalted(Refused):
    """The stream cannot go on without losing or inventing something.

    ``position`` names the place: topic, partition, offset and, where known, the transaction.
    """

    def __init__(self, code: str, cause: str, position: str, remedy: str | None = None) -> None:
        super().__init__(
            code,
            f"{cause} (at {position})",
            remedy
            or "Nothing past this position was applied. `cdc-migrator abort` removes this "
            "migration's slot, connector, topic and control schemas; then empty the target's "
            "tables and start it again.",
        )
        self.position = position


def name_of(error: BaseException) -> str:
    """What an error is called in a log: its code, or its kind where it has none."""
    return error.code if isinstance(error, MigratorError) else type(error).__name__
