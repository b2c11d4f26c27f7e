"""Single rows: inserted, updated, deleted, upserted, with long texts touched and left alone."""

from __future__ import annotations

from cdc_migrator.demo.kinds.pen import Kind, Pen


def new_customer(pen: Pen) -> bool:
    """A customer registers."""
    return pen.one(
        "INSERT INTO shop.customers (email, given_name, country, postcode, labels, last_address, "
        "avatar) VALUES ('new' || nextval('shop_ledger.names') || '@example.com', %(name)s, 'NL', "
        "'10 AB', ARRAY[%(name)s], '10.9.8.7', %(avatar)s)",
        name=pen.word(),
        avatar=pen.chance.randbytes(pen.chance.randrange(40)),
    )


def new_session(pen: Pen) -> bool:
    """A visitor comes, known or not."""
    return pen.one(
        "INSERT INTO shop.sessions (token, customer_id, address, score) VALUES (%(token)s, "
        "(SELECT id FROM shop.customers WHERE id >= %(customer)s ORDER BY id LIMIT 1), "
        "'2001:db8::1', %(score)s)",
        token=pen.new_uuid(),
        customer=pen.chance.choice((None, pen.id(pen.bounds.customers))),
        score=pen.chance.random(),
    )


def _cached(pen: Pen) -> bool:
    key = pen.new_uuid()
    pen.write("INSERT INTO shop.session_cache VALUES (%(key)s, '{\"n\": 1.50}')", key=key)
    return pen.one("INSERT INTO shop.session_cache_hits VALUES (%(key)s)", key=key)


def _redeemed(pen: Pen) -> bool:
    return pen.one(
        "INSERT INTO shop.redemptions (coupon_code, customer_id) SELECT c.code, (SELECT id "
        "FROM shop.customers WHERE id >= %(customer)s ORDER BY id LIMIT 1) FROM (SELECT code "
        "FROM shop.coupons WHERE code >= %(code)s ORDER BY code LIMIT 1 "
        "FOR KEY SHARE SKIP LOCKED) AS c",
        customer=pen.id(pen.bounds.customers),
        code=pen.coupon(),
    )


def _customer_edited(pen: Pen) -> bool:
    return pen.one(
        "UPDATE shop.customers SET balance = balance + %(by)s, newsletter = NOT newsletter, "
        "family_name = %(name)s, labels = ARRAY[%(name)s, NULL, ''], "
        "preferences = preferences || jsonb_build_object('page', %(page)s::int) WHERE id = "
        "(SELECT id FROM shop.customers WHERE id >= %(id)s ORDER BY id LIMIT 1)",
        by=pen.chance.randrange(-900, 900) / 100,
        name=pen.word(),
        page=pen.id(80),
        id=pen.id(pen.bounds.customers),
    )


def _order_moved_on(pen: Pen) -> bool:
    # A trigger writes the change of status to the table without a key.
    return pen.one(
        "UPDATE shop.orders SET status = (enum_range(status))[%(status)s], note = %(note)s "
        "WHERE id = (SELECT id FROM shop.orders WHERE id >= %(id)s ORDER BY id LIMIT 1)",
        status=pen.id(6),
        note=pen.word(),
        id=pen.id(pen.bounds.orders),
    )


def _product_edited(pen: Pen) -> bool:
    return pen.one(
        "UPDATE shop.products SET price = price + 0.01, weight = %(weight)s, "
        "dimensions = ARRAY[%(n)s, NULL, 3] WHERE id = %(id)s",
        weight=pen.chance.choice((None, "1.5", "1.50", "0.0001")),
        n=pen.id(90),
        id=pen.id(pen.bounds.products),
    )


def _session_scored(pen: Pen) -> bool:
    return pen.one(
        "UPDATE shop.sessions SET score = %(score)s, basket = jsonb_build_object('items', "
        "%(items)s::int) WHERE token = (SELECT token FROM shop.sessions "
        "WHERE token >= %(token)s ORDER BY token LIMIT 1 FOR UPDATE SKIP LOCKED)",
        score=pen.chance.choice((pen.chance.random(), float("nan"), -0.0, None)),
        items=pen.id(9),
        token=pen.uuid(),
    )


def _gift_card_topped_up(pen: Pen) -> bool:
    return pen.one(
        'UPDATE shop."GiftCards" SET "Balance" = "Balance" + 1, "order" = %(order)s '
        'WHERE "Id" = %(id)s',
        order=pen.word(),
        id=pen.id(pen.bounds.gift_cards),
    )


def _session_ended(pen: Pen) -> bool:
    return pen.one(
        "DELETE FROM shop.sessions WHERE token = (SELECT token FROM shop.sessions "
        "WHERE token >= %(token)s ORDER BY token LIMIT 1 FOR UPDATE SKIP LOCKED)",
        token=pen.uuid(),
    )


def _redemption_undone(pen: Pen) -> bool:
    return pen.one(
        "DELETE FROM shop.redemptions WHERE id = (SELECT id FROM shop.redemptions "
        "WHERE id >= %(id)s ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)",
        id=pen.id(pen.bounds.redemptions),
    )


def _order_deleted(pen: Pen) -> bool:
    # Its lines go by the foreign key's cascade.
    found = pen.read(
        "SELECT id FROM shop.orders WHERE id >= %(id)s ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
        id=pen.id(pen.bounds.orders),
    )
    if not found:
        return False
    pen.write("DELETE FROM shop.payments WHERE order_id = %(id)s", id=found[0][0])
    return pen.one("DELETE FROM shop.orders WHERE id = %(id)s", id=found[0][0])


_INSERTS = (new_customer, new_session, _cached, _redeemed)
_UPDATES = (
    _customer_edited,
    _order_moved_on,
    _product_edited,
    _session_scored,
    _gift_card_topped_up,
)
_DELETES = (_session_ended, _redemption_undone, _order_deleted)


def _insert(pen: Pen) -> bool:
    return pen.chance.choice(_INSERTS)(pen)


def _update(pen: Pen) -> bool:
    return pen.chance.choice(_UPDATES)(pen)


def _delete(pen: Pen) -> bool:
    return pen.chance.choice(_DELETES)(pen)


def _upsert(pen: Pen) -> bool:
    """The table's identity is a unique index, not a primary key."""
    return pen.one(
        "INSERT INTO shop.exchange_rates VALUES (%(currency)s, current_date + %(day)s, %(rate)s) "
        "ON CONFLICT (currency, valid_on) DO UPDATE SET rate = excluded.rate",
        currency=pen.chance.choice(("USD", "GBP", "JPY", "PLN", "NOK")),
        day=pen.chance.randrange(-400, 30),
        rate=str(pen.id(10**9) / 10**6),
    )


def _toast_unchanged(pen: Pen) -> bool:
    """A row with a long text changes in other columns: the text is not in the event."""
    return pen.one(
        "UPDATE shop.reviews SET helpful = helpful + 1, published = NOT published WHERE id = "
        "(SELECT id FROM shop.reviews WHERE id >= %(id)s AND length(body) > 4000 "
        "ORDER BY id LIMIT 1)",
        id=pen.id(pen.bounds.reviews),
    )


def _toast_changed(pen: Pen) -> bool:
    """A long text is replaced by another of 5 to 50 KB, now and then by none."""
    return pen.one(
        "UPDATE shop.reviews SET body = CASE WHEN %(length)s::int > 6000 "
        "THEN shop.long_text(%(length)s, %(seed)s) END WHERE id = %(id)s",
        length=pen.chance.randrange(5_000, 50_000),
        seed=pen.new_uuid(),
        id=pen.id(pen.bounds.reviews),
    )


KINDS = (
    Kind("insert", 12, _insert),
    Kind("update", 16, _update),
    Kind("delete", 6, _delete),
    Kind("upsert", 4, _upsert),
    Kind("toast_unchanged", 5, _toast_unchanged),
    Kind("toast_changed", 1, _toast_changed),
)
