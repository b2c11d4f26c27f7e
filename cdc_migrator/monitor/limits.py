"""What the gates measure by, out of the settings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be, at most, when the verdict is yes.

    Attributes:
        max_lag: from source commit to target commit.
        max_compared_age: since the moment up to which everything written was compared.
        max_proof_age: of any proof, also of what nobody wrote to since.
        max_transaction_age: of an open transaction on the source.
        min_runway: until the source, or Kafka, throws away what is still needed.
        max_backup_age: None: no backup is asked for.
        max_inspection_age: what was found longer ago is not known any more.
        fence: the target's tables shall be fenced.
        schema_differs: why the target's schema may differ where rows arrive all the same.
        hooks: digest of the hooks that are configured; None: there are none.
        without_way_back: why it is acceptable that there is none.
        rules: digest of the rules that `validate` checks; None: there are none.
        max_rules_age: since they were checked.
        stale_rules_pass: they do not stand against it while they were not checked lately.
        accepted: reasons for which what `check` finds is accepted, each behind its code.
    """

    max_lag: timedelta = timedelta(seconds=10)
    max_compared_age: timedelta = timedelta(minutes=15)
    max_proof_age: timedelta = timedelta(days=7)
    max_transaction_age: timedelta = timedelta(seconds=30)
    min_runway: timedelta = timedelta(hours=1)
    max_backup_age: timedelta | None = timedelta(hours=24)
    max_inspection_age: timedelta = timedelta(minutes=5)
    fence: bool = True
    schema_differs: str | None = None
    hooks: str | None = None
    without_way_back: str | None = None
    rules: str | None = None
    max_rules_age: timedelta = timedelta(days=1)
    stale_rules_pass: bool = False
    accepted: tuple[tuple[str, str], ...] = ()
