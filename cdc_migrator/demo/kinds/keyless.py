"""The table without a key: rows are told apart by their whole content, and some are the same."""

from __future__ import annotations

from cdc_migrator.demo.kinds.pen import Kind, Pen

_SECONDS_BACK = 9_000  # how far the rows reach back that the shop comes with


def _insert(pen: Pen) -> bool:
    return pen.one(
        "INSERT INTO shop.audit_log (actor, action, subject, amount, detail) VALUES "
        "(%(actor)s, 'note', %(subject)s, %(amount)s, jsonb_build_object('desk', %(desk)s::int))",
        actor=f"clerk {pen.id(30)}",
        subject=pen.chance.choice((None, "", pen.word())),
        amount=pen.chance.choice((None, "1.0", "1.00", "-0.5")),
        desk=pen.id(12),
    )


def _update(pen: Pen) -> bool:
    """One row, perhaps one of two that are the same."""
    return pen.one(
        "UPDATE shop.audit_log SET subject = %(subject)s, amount = coalesce(amount, 0) + 1 "
        "WHERE ctid = (SELECT ctid FROM shop.audit_log WHERE at >= now() - %(back)s "
        "* interval '1 s' ORDER BY at LIMIT 1 FOR UPDATE SKIP LOCKED)",
        subject=pen.word(),
        back=pen.id(_SECONDS_BACK),
    )


def _delete(pen: Pen) -> bool:
    """One row, perhaps one of two that are the same."""
    return pen.one(
        "DELETE FROM shop.audit_log WHERE ctid = (SELECT ctid FROM shop.audit_log "
        "WHERE at >= now() - %(back)s * interval '1 s' ORDER BY at LIMIT 1 FOR UPDATE SKIP LOCKED)",
        back=pen.id(_SECONDS_BACK),
    )


def _duplicate(pen: Pen) -> bool:
    """A row that is already there is written again, byte for byte."""
    return pen.one(
        "INSERT INTO shop.audit_log SELECT * FROM shop.audit_log "
        "WHERE at >= now() - %(back)s * interval '1 s' ORDER BY at LIMIT 1",
        back=pen.id(_SECONDS_BACK),
    )


KINDS = (
    Kind("keyless_insert", 5, _insert),
    Kind("keyless_update", 2, _update),
    Kind("keyless_delete", 3, _delete),
    Kind("keyless_duplicate", 2, _duplicate),
)
