-- What 1_tables.sql left out: unique constraints, indexes, foreign keys, triggers, the view.

ALTER TABLE shop.categories ADD FOREIGN KEY (parent_id) REFERENCES shop.categories;
ALTER TABLE shop.customers ADD UNIQUE (email);
ALTER TABLE shop.products ADD UNIQUE (sku), ADD UNIQUE (display_rank),
  ADD FOREIGN KEY (category_id) REFERENCES shop.categories;
ALTER TABLE shop.tags ADD UNIQUE (name);
ALTER TABLE shop.product_tags ADD FOREIGN KEY (product_id) REFERENCES shop.products,
  ADD FOREIGN KEY (tag_id) REFERENCES shop.tags;
ALTER TABLE shop.inventory ADD FOREIGN KEY (product_id) REFERENCES shop.products;
ALTER TABLE shop.orders ADD UNIQUE (number),
  ADD FOREIGN KEY (customer_id) REFERENCES shop.customers;
ALTER TABLE shop.order_lines
  ADD FOREIGN KEY (order_id) REFERENCES shop.orders ON DELETE CASCADE,
  ADD FOREIGN KEY (product_id) REFERENCES shop.products;
ALTER TABLE shop.payments ADD FOREIGN KEY (order_id) REFERENCES shop.orders;
ALTER TABLE shop.sessions ADD FOREIGN KEY (customer_id) REFERENCES shop.customers;
ALTER TABLE shop.session_cache_hits ADD FOREIGN KEY (key) REFERENCES shop.session_cache;
ALTER TABLE shop.reviews ADD FOREIGN KEY (product_id) REFERENCES shop.products,
  ADD FOREIGN KEY (customer_id) REFERENCES shop.customers;
ALTER TABLE shop.redemptions
  ADD FOREIGN KEY (coupon_code) REFERENCES shop.coupons ON UPDATE CASCADE,
  ADD FOREIGN KEY (customer_id) REFERENCES shop.customers;
ALTER TABLE shop.workshop_seats
  ADD CONSTRAINT one_guest_per_seat UNIQUE (workshop, seat) DEFERRABLE INITIALLY IMMEDIATE;
ALTER TABLE shop.shelf_places ADD FOREIGN KEY (product_id) REFERENCES shop.products;
ALTER TABLE shop."GiftCards" ADD UNIQUE ("Number");
ALTER TABLE shop.events ADD FOREIGN KEY (customer_id) REFERENCES shop.customers;

CREATE UNIQUE INDEX exchange_rates_identity ON shop.exchange_rates (currency, valid_on);
ALTER TABLE shop.exchange_rates REPLICA IDENTITY USING INDEX exchange_rates_identity;

CREATE INDEX customers_family_name ON shop.customers (lower(family_name));
CREATE INDEX customers_preferences ON shop.customers USING gin (preferences jsonb_path_ops);
CREATE INDEX orders_customer ON shop.orders (customer_id, placed_at DESC);
CREATE INDEX orders_open ON shop.orders (placed_at) WHERE status IN ('new', 'paid');
CREATE INDEX order_lines_product ON shop.order_lines (product_id);
CREATE INDEX payments_order ON shop.payments (order_id);
CREATE INDEX redemptions_coupon ON shop.redemptions (coupon_code);
CREATE INDEX events_customer ON shop.events (customer_id) INCLUDE (kind);
CREATE INDEX audit_log_at ON shop.audit_log (at);
COMMENT ON INDEX shop.orders_open IS 'What the warehouse still has to send';

CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at := clock_timestamp();
  RETURN NEW;
END
$$;
CREATE TRIGGER touch BEFORE UPDATE ON shop.customers FOR EACH ROW EXECUTE FUNCTION shop.touch();
CREATE TRIGGER touch BEFORE UPDATE ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.touch();

CREATE FUNCTION shop.audit_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO shop.audit_log (actor, action, subject, amount, detail)
  VALUES ('shop', 'status', NEW.number, NEW.total,
          jsonb_build_object('from', OLD.status, 'to', NEW.status));
  RETURN NULL;
END
$$;
CREATE TRIGGER audit_status AFTER UPDATE OF status ON shop.orders FOR EACH ROW
WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION shop.audit_status();

CREATE VIEW shop.order_summary AS
SELECT o.id, o.number, c.full_name, o.status, count(l.line) AS lines, sum(l.line_total) AS value
FROM shop.orders AS o
JOIN shop.customers AS c ON c.id = o.customer_id
LEFT JOIN shop.order_lines AS l ON l.order_id = o.id
GROUP BY o.id, c.full_name;
COMMENT ON VIEW shop.order_summary IS 'One line for each order';

ANALYZE;
