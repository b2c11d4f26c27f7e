-- Something to move: run once, when the source's data directory is new.
CREATE SCHEMA shop;

CREATE TABLE shop.customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text NOT NULL UNIQUE,
    joined_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE shop.orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES shop.customers,
    total numeric(12, 2) NOT NULL CHECK (total >= 0),
    placed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON shop.orders (customer_id);

INSERT INTO shop.customers (email)
SELECT format('customer-%s@shop.example', n) FROM generate_series(1, 10000) AS n;

INSERT INTO shop.orders (customer_id, total)
SELECT 1 + n % 10000, (n % 5000) / 10.0 FROM generate_series(1, 100000) AS n;
