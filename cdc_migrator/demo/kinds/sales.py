"""Several tables in one transaction, and transactions that end in another way than they began."""

from __future__ import annotations

from cdc_migrator.demo.kinds.pen import Kind, Pen
from cdc_migrator.demo.kinds.rows import new_customer, new_session


def _order(pen: Pen) -> bool:
    """A sale: order, lines, stock, payment, event and the customer's credit."""
    placed = pen.read(
        "INSERT INTO shop.orders (customer_id, shipping, note, deliver_on) "
        "SELECT id, jsonb_build_object('street', %(note)s::text), %(note)s, current_date + 3 "
        "FROM shop.customers WHERE id >= %(customer)s ORDER BY id LIMIT 1 "
        "RETURNING id, customer_id",
        note=pen.word(),
        customer=pen.id(pen.bounds.customers),
    )
    if not placed:
        return False
    order, customer = placed[0]
    # Sorted, so that two sales of the same products never wait for each other in a circle.
    products = sorted({pen.id(pen.bounds.products) for _ in range(pen.id(3))})
    pen.write(
        "INSERT INTO shop.order_lines (order_id, line, product_id, quantity, unit_price) "
        "SELECT %(order)s, row_number() OVER (ORDER BY id), id, 2, price FROM shop.products "
        "WHERE id = ANY(%(products)s) ORDER BY id",
        order=order,
        products=products,
    )
    for product in products:
        pen.write(
            "UPDATE shop.inventory SET quantity = quantity - 2 "
            "WHERE warehouse = 'BER' AND product_id = %(product)s",
            product=product,
        )
    pen.write(
        "INSERT INTO shop.payments (order_id, method, amount, fee, receipt, succeeded, paid_at) "
        "SELECT %(order)s, 'card', sum(line_total), sum(line_total) * 0.0175, %(receipt)s, true, "
        "clock_timestamp() AT TIME ZONE 'UTC' FROM shop.order_lines WHERE order_id = %(order)s",
        order=order,
        receipt=pen.chance.randbytes(32),
    )
    pen.write(
        "INSERT INTO shop.events (happened_at, customer_id, kind, payload) VALUES "
        "(clock_timestamp(), %(customer)s, 'sale', jsonb_build_object('order', %(order)s::int))",
        customer=customer,
        order=order,
    )
    return pen.one(
        "UPDATE shop.customers SET balance = balance + 0.01 WHERE id = %(id)s", id=customer
    )


def _savepoint(pen: Pen) -> bool:
    """The middle part of a transaction is rolled back, the rest is committed."""
    pen.conn.execute("SAVEPOINT kept")
    new_customer(pen)
    pen.conn.execute("RELEASE kept")
    pen.conn.execute("SAVEPOINT dropped")
    _order(pen)
    pen.conn.execute("ROLLBACK TO dropped")
    return new_session(pen)


def _rollback(pen: Pen) -> bool:
    """A sale that is rolled back; what the caller then commits is the count of it alone."""
    done = _order(pen)
    pen.conn.rollback()
    return done


def _truncate(pen: Pen) -> bool:
    """Scratch tables are emptied between two inserts of the same transaction."""
    # The lock shuts out every reader: give up soon rather than make the shop wait behind it.
    pen.conn.execute("SET LOCAL lock_timeout = '50ms'")
    pen.write("INSERT INTO shop.session_cache VALUES (%(key)s, '{}')", key=pen.new_uuid())
    pen.conn.execute("TRUNCATE shop.session_cache, shop.session_cache_hits")
    return pen.one("INSERT INTO shop.session_cache VALUES (%(key)s, 'null')", key=pen.new_uuid())


KINDS = (
    Kind("order", 12, _order),
    Kind("savepoint", 4, _savepoint),
    Kind("rollback", 3, _rollback),
    Kind("truncate", 1, _truncate, single=True),
)
