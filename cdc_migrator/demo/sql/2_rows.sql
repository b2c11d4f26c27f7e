-- Rows of the shop. The custom setting shop.scale multiplies how many; random() is seeded by
-- the caller, so that the same scale gives the same rows but for the dates, which end today.

CREATE FUNCTION pg_temp.scaled(rows integer) RETURNS integer LANGUAGE sql STABLE
RETURN greatest(20, (rows * current_setting('shop.scale')::double precision)::integer);
CREATE FUNCTION pg_temp.below(high integer) RETURNS integer LANGUAGE sql VOLATILE
RETURN 1 + floor(random() * high)::integer;

INSERT INTO shop.categories
SELECT i, CASE WHEN i > 8 THEN 1 + i % 8 END, 'Category ' || i FROM generate_series(1, 40) AS i;

INSERT INTO shop.customers (email, given_name, family_name, country, postcode, balance, newsletter,
  born_on, labels, preferences, last_address, avatar, created_at, updated_at)
SELECT
  'customer' || i || '@example.com',
  (ARRAY['Ada', 'Grace', 'José', 'Zoë', 'Søren', 'Łukasz', '陽子', 'O''Neil', 'Back\slash', ''])[1 + i % 10],
  CASE WHEN i % 7 > 0 THEN 'Family ' || (i % 911) END,
  (ARRAY['DE', 'FR', 'PL', 'US', 'JP'])[1 + i % 5],
  CASE WHEN i % 3 > 0 THEN to_char(10000 + i % 89999, 'FM00000') END,
  (random() * 2000 - 500)::numeric(12,2),
  i % 3 = 0,
  CASE WHEN i % 4 > 0 THEN date '1950-01-01' + (i * 7) % 20000 END,
  CASE i % 6 WHEN 0 THEN '{}' WHEN 1 THEN ARRAY['vip'] WHEN 2 THEN ARRAY['a,b', '"quoted"', NULL]
    ELSE ARRAY['since ' || (1990 + i % 30), ''] END,
  jsonb_build_object('theme', CASE WHEN i % 2 = 0 THEN 'dark' ELSE 'light' END, 'page', i % 50,
    'limit', (i % 300)::numeric(6,2), 'seen', jsonb_build_array(i % 11, NULL, 'ü')),
  ('10.' || i % 250 || '.' || i % 199 || '.' || i % 251)::inet,
  CASE WHEN i % 5 = 0 THEN decode(md5('avatar ' || i), 'hex') END,
  now() - make_interval(secs => 90 * (40000 - i % 40000)),
  now() - make_interval(secs => i % 40000)
FROM generate_series(1, pg_temp.scaled(40000)) AS i;

INSERT INTO shop.products (sku, category_id, name, description, price, weight, dimensions,
  attributes, display_rank, discontinued)
SELECT
  'SKU-' || upper(substr(md5(i::text), 1, 10)),
  1 + i % 40,
  'Product ' || i,
  CASE WHEN i % 10 = 0 THEN shop.long_text(5000 + i % 4000, 'product ' || i)
       WHEN i % 10 = 1 THEN NULL ELSE 'About product ' || i || E'\nwith a second line\tand a tab' END,
  (1 + random() * 400)::numeric(12,2),
  CASE i % 4 WHEN 0 THEN i / 8.0 WHEN 1 THEN (i || '.500')::numeric WHEN 2 THEN i END,
  CASE WHEN i % 3 > 0 THEN ARRAY[i % 90, NULL, i % 40] END,
  jsonb_build_object('colour', (ARRAY['red', 'green', 'blue'])[1 + i % 3], 'warranty', i % 5),
  i,
  i % 50 = 0
FROM generate_series(1, pg_temp.scaled(5000)) AS i;

INSERT INTO shop.tags (name) SELECT 'tag ' || i FROM generate_series(1, 200) AS i;

INSERT INTO shop.product_tags
SELECT id, 1 + (id * 7 + k * 53) % 200
FROM shop.products CROSS JOIN generate_series(0, 2) AS k WHERE (id + k) % 5 > 0;

INSERT INTO shop.inventory
SELECT warehouse, id, id % 400, ARRAY[id % 12, id % 77],
  CASE WHEN id % 9 > 0 THEN (now() AT TIME ZONE 'UTC') - make_interval(mins => id) END
FROM shop.products CROSS JOIN (VALUES ('BER'), ('LYON'), ('OSL')) AS w (warehouse);

INSERT INTO shop.orders (customer_id, status, total, shipping, note, reference, deliver_on,
  placed_at, updated_at)
SELECT
  pg_temp.below(pg_temp.scaled(40000)),
  (enum_range(NULL::shop.order_status))[1 + i % 6],
  (random() * 500)::numeric(12,2),
  CASE WHEN i % 4 > 0 THEN jsonb_build_object('street', 'Street ' || i % 700, 'express', i % 2 = 0) END,
  CASE WHEN i % 6 = 0 THEN 'Leave it at the door, "please"' END,
  md5('order ' || i)::uuid,
  CASE WHEN i % 3 > 0 THEN current_date + i % 30 END,
  now() - make_interval(secs => 120 * (60000 - i % 60000)),
  now() - make_interval(secs => i % 60000)
FROM generate_series(1, pg_temp.scaled(60000)) AS i;

INSERT INTO shop.order_lines (order_id, line, product_id, quantity, unit_price)
SELECT id, k, 1 + (id * 31 + k * 17) % pg_temp.scaled(5000), 1 + (id + k) % 4,
  (1 + (id * 37 + k) % 40000 / 100.0)::numeric(12,2)
FROM shop.orders CROSS JOIN generate_series(1, 3) AS k WHERE k <= 1 + id % 3;

INSERT INTO shop.payments
SELECT md5('payment ' || id)::uuid, id, (enum_range(NULL::shop.payment_method))[1 + id % 4], total,
  CASE WHEN id % 3 > 0 THEN total * 0.0175 END,
  CASE WHEN id % 4 = 0 THEN sha256(convert_to(number, 'UTF8')) WHEN id % 4 = 1 THEN '' END,
  CASE WHEN id % 20 > 0 THEN id % 10 > 0 END,
  (placed_at AT TIME ZONE 'UTC') + interval '90.123456 s'
FROM shop.orders WHERE id % 12 > 0;

INSERT INTO shop.events (happened_at, customer_id, kind, payload)
SELECT
  date_trunc('month', now()) - interval '5 months' + random() * (now() - (date_trunc('month', now()) - interval '5 months')),
  CASE WHEN i % 5 > 0 THEN pg_temp.below(pg_temp.scaled(40000)) END,
  (ARRAY['page view', 'search', 'basket', 'checkout'])[1 + i % 4],
  jsonb_build_object('path', '/p/' || i % 5000, 'ms', i % 900)
FROM generate_series(1, pg_temp.scaled(40000)) AS i;

INSERT INTO shop.sessions
SELECT
  md5('session ' || i)::uuid,
  CASE WHEN i % 4 > 0 THEN pg_temp.below(pg_temp.scaled(40000)) END,
  CASE WHEN i % 3 = 0 THEN ('2001:db8::' || to_hex(i % 65535))::inet ELSE '192.168.0.0/24'::inet + i % 200 END,
  CASE i % 500 WHEN 0 THEN 'NaN' WHEN 1 THEN '-0' WHEN 2 THEN 'Infinity' ELSE random() END,
  jsonb_build_object('items', i % 9, 'value', (i % 7000) / 100.0),
  now() - make_interval(secs => i),
  CASE WHEN i % 10 > 0 THEN now() + make_interval(hours => i % 48) ELSE 'infinity' END
FROM generate_series(1, pg_temp.scaled(15000)) AS i;

INSERT INTO shop.session_cache
SELECT 'warm ' || i, jsonb_build_object('n', i) FROM generate_series(1, 300) AS i;
INSERT INTO shop.session_cache_hits SELECT key, 1 FROM shop.session_cache;

INSERT INTO shop.reviews (product_id, customer_id, rating, body, helpful, written_at)
SELECT pg_temp.below(pg_temp.scaled(5000)), pg_temp.below(pg_temp.scaled(40000)), 1 + i % 5,
  shop.long_text(5000 + (i * 7919) % (CASE WHEN i % 10 = 0 THEN 45000 ELSE 9000 END), 'review ' || i),
  i % 90, now() - make_interval(hours => i)
FROM generate_series(1, pg_temp.scaled(1500)) AS i;

INSERT INTO shop.coupons (code, percent, terms, valid_until, used)
SELECT upper(md5('coupon ' || i)), (i % 70)::numeric(5,2), shop.long_text(4000, 'coupon ' || i),
  CASE WHEN i % 3 = 0 THEN 'infinity'
       ELSE (now() AT TIME ZONE 'UTC') + make_interval(days => i % 100) END, 0
FROM generate_series(1, pg_temp.scaled(2000)) AS i;

INSERT INTO shop.redemptions (coupon_code, customer_id, at)
SELECT code, pg_temp.below(pg_temp.scaled(40000)), now() - make_interval(mins => k)
FROM shop.coupons CROSS JOIN generate_series(1, 3) AS k;

INSERT INTO shop.workshop_seats (workshop, seat, guest)
SELECT w, s, CASE WHEN (w + s) % 3 > 0 THEN 'Guest ' || w || '/' || s END
FROM generate_series(1, pg_temp.scaled(100)) AS w CROSS JOIN generate_series(1, 20) AS s;

INSERT INTO shop.shelf_places
SELECT shelf, place, pg_temp.below(pg_temp.scaled(5000))
FROM generate_series(1, pg_temp.scaled(100)) AS shelf CROSS JOIN generate_series(1, 6) AS place;

INSERT INTO shop.exchange_rates
SELECT c.currency, current_date - d, (c.base + random() / 50)::numeric
FROM (VALUES ('USD', 1.1), ('GBP', 0.85), ('JPY', 160), ('PLN', 4.3), ('NOK', 11.6)) AS c (currency, base)
CROSS JOIN generate_series(0, 399) AS d;

INSERT INTO shop."GiftCards" ("Number", "Balance", "order", "Expires")
SELECT 'G' || lpad(i::text, 10, '0'), (i % 200)::numeric(12,2), CASE WHEN i % 2 = 0 THEN 'gift ' || i END,
  CASE WHEN i % 5 > 0 THEN current_date + i % 900 ELSE 'infinity' END
FROM generate_series(1, pg_temp.scaled(3000)) AS i;

INSERT INTO shop.import_lines
SELECT 0, i, 'SUP-' || i, i / 100.0 FROM generate_series(1, pg_temp.scaled(3000)) AS i;

-- Every third row stands here twice.
INSERT INTO shop.audit_log
SELECT now() - make_interval(secs => i), 'clerk ' || i % 30, (ARRAY['login', 'refund', 'price'])[1 + i % 3],
  CASE WHEN i % 2 = 0 THEN 'customer ' || i % 800 END, CASE WHEN i % 3 = 1 THEN i / 100.0 END,
  CASE WHEN i % 4 > 0 THEN jsonb_build_object('desk', i % 12, 'ok', i % 5 > 0) END
FROM generate_series(1, pg_temp.scaled(9000)) AS i
CROSS JOIN LATERAL generate_series(1, CASE WHEN i % 3 = 0 THEN 2 ELSE 1 END);
