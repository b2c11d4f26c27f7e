"""Keys and unique values that change, trade places and move along; rows that change partition."""

from __future__ import annotations

from cdc_migrator.demo.kinds.pen import Kind, Pen


def _coupon_renamed(pen: Pen) -> bool:
    # Its long text stays where it is, and the redemptions follow by the foreign key's cascade.
    return pen.one(
        "UPDATE shop.coupons SET code = upper(md5(%(seed)s)), used = used + 1 WHERE code = "
        "(SELECT code FROM shop.coupons WHERE code >= %(code)s ORDER BY code LIMIT 1 "
        "FOR UPDATE SKIP LOCKED)",
        seed=pen.new_uuid(),
        code=pen.coupon(),
    )


def _token_rotated(pen: Pen) -> bool:
    return pen.one(
        "UPDATE shop.sessions SET token = %(new)s WHERE token = (SELECT token FROM shop.sessions "
        "WHERE token >= %(token)s ORDER BY token LIMIT 1 FOR UPDATE SKIP LOCKED)",
        new=pen.new_uuid(),
        token=pen.uuid(),
    )


def _key_change(pen: Pen) -> bool:
    return pen.chance.choice((_coupon_renamed, _token_rotated))(pen)


def _key_swap(pen: Pen) -> bool:
    """Two coupons trade their codes by way of a third one."""
    found = pen.two(
        "SELECT code FROM shop.coupons WHERE code >= %(code)s ORDER BY code LIMIT 2 "
        "FOR UPDATE SKIP LOCKED",
        code=pen.coupon(),
    )
    if not found:
        return False
    (one,), (two,) = found
    aside = "aside " + pen.new_uuid()
    return all(
        pen.one("UPDATE shop.coupons SET code = %(new)s WHERE code = %(old)s", new=new, old=old)
        for old, new in ((one, aside), (two, one), (aside, two))
    )


def _key_chain(pen: Pen) -> bool:
    """A product comes to the front of a shelf: the last row goes, every other key moves on."""
    shelf = pen.id(pen.bounds.shelves)
    places = pen.read(
        "SELECT place FROM shop.shelf_places WHERE shelf = %(shelf)s ORDER BY place FOR UPDATE",
        shelf=shelf,
    )
    if not places:
        return False
    pen.write(
        "DELETE FROM shop.shelf_places WHERE shelf = %(shelf)s AND place = %(place)s",
        shelf=shelf,
        place=places[-1][0],
    )
    # A plain primary key is checked row by row, so the rows first step aside.
    for by in (1000, -999):
        pen.write(
            "UPDATE shop.shelf_places SET place = place + %(by)s WHERE shelf = %(shelf)s",
            by=by,
            shelf=shelf,
        )
    return pen.one(
        "INSERT INTO shop.shelf_places VALUES (%(shelf)s, 1, %(product)s)",
        shelf=shelf,
        product=pen.id(pen.bounds.products),
    )


def _unique_swap(pen: Pen) -> bool:
    """Two guests trade seats in one UPDATE, under a deferrable unique constraint."""
    found = pen.two(
        "SELECT id, seat FROM shop.workshop_seats WHERE workshop = (SELECT workshop "
        "FROM shop.workshop_seats WHERE id = %(id)s) ORDER BY id FOR UPDATE SKIP LOCKED",
        id=pen.id(pen.bounds.seats),
    )
    if not found:
        return False
    (one, one_seat), (two, two_seat) = found
    swapped = pen.write(
        "UPDATE shop.workshop_seats SET seat = CASE id WHEN %(one)s THEN %(two_seat)s::int "
        "ELSE %(one_seat)s END WHERE id IN (%(one)s, %(two)s)",
        one=one,
        two=two,
        one_seat=one_seat,
        two_seat=two_seat,
    )
    return swapped == 2


def _unique_steps(pen: Pen) -> bool:
    """Two products trade ranks in three steps, under a plain unique constraint."""
    found = pen.two(
        "SELECT id, display_rank FROM shop.products WHERE id >= %(id)s ORDER BY id LIMIT 4 "
        "FOR UPDATE SKIP LOCKED",
        id=pen.id(pen.bounds.products),
    )
    if not found:
        return False
    (one, one_rank), (two, two_rank) = found
    return all(
        pen.one(
            "UPDATE shop.products SET display_rank = %(rank)s WHERE id = %(id)s", id=id_, rank=rank
        )
        for id_, rank in ((one, -one_rank), (two, one_rank), (one, two_rank))
    )


def _partition_move(pen: Pen) -> bool:
    """An event's time is corrected by 31 days, which always takes it to another partition."""
    moved = pen.read(
        "WITH old AS (SELECT id, happened_at, tableoid AS part FROM shop.events "
        "WHERE id >= %(id)s ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) "
        "UPDATE shop.events AS e SET happened_at = e.happened_at + CASE "
        "WHEN e.happened_at < now() - interval '70 days' THEN interval '31 days' "
        "ELSE interval '-31 days' END FROM old "
        "WHERE e.id = old.id AND e.happened_at = old.happened_at "
        "RETURNING e.tableoid <> old.part",
        id=pen.id(pen.bounds.events),
    )
    return moved == [(True,)]


KINDS = (
    Kind("key_change", 4, _key_change),
    Kind("key_swap", 2, _key_swap),
    Kind("key_chain", 2, _key_chain),
    Kind("unique_swap", 4, _unique_swap),
    Kind("unique_steps", 3, _unique_steps),
    Kind("partition_move", 3, _partition_move),
)
