-- What the two services want; each team has made its own schema.
CREATE SCHEMA accounts;
CREATE TABLE accounts.person (
    id bigint PRIMARY KEY,
    email text NOT NULL,
    name text NOT NULL,
    search_name text NOT NULL,
    phone_hint text,
    since date NOT NULL
);
CREATE UNIQUE INDEX person_email ON accounts.person (email);
CREATE TABLE accounts.address (
    person_id bigint PRIMARY KEY,
    street text,
    city text
);
-- For the way back: an address that comes to another person must be told whole.
ALTER TABLE accounts.address REPLICA IDENTITY FULL;
CREATE TABLE accounts.login (
    id bigint PRIMARY KEY,
    person_id bigint NOT NULL,
    at timestamptz NOT NULL
);
CREATE SCHEMA sales;
CREATE TYPE sales.state AS ENUM ('open', 'paid', 'cancelled', 'unknown');
CREATE TABLE sales.purchase (
    origin text NOT NULL,
    id bigint NOT NULL,
    buyer_id bigint NOT NULL,
    state sales.state NOT NULL,
    total_cents bigint NOT NULL,
    placed_at timestamptz NOT NULL,
    PRIMARY KEY (origin, id)
);
CREATE INDEX purchase_buyer ON sales.purchase (buyer_id);
