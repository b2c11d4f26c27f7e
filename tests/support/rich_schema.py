"""A schema with every kind of object that is compared, with odd names and with those of a shop."""

RICH = """
CREATE EXTENSION citext; CREATE EXTENSION btree_gist;
CREATE SCHEMA rich; CREATE SCHEMA "Odd ""S"; CREATE SCHEMA lib;
COMMENT ON SCHEMA rich IS 'it''s rich \\ and more';
CREATE TYPE rich.mood AS ENUM ('sad', 'it''s ok', 'glad');
COMMENT ON TYPE rich.mood IS 'how it feels';
CREATE DOMAIN lib.pos AS int DEFAULT 1 CHECK (value > 0);
COMMENT ON DOMAIN lib.pos IS 'positive';
COMMENT ON CONSTRAINT pos_check ON DOMAIN lib.pos IS 'above nothing';
CREATE DOMAIN rich.code AS varchar(8) COLLATE "C" NOT NULL;
CREATE TYPE rich.address AS (street text, zip varchar(10) COLLATE "C");
COMMENT ON COLUMN rich.address.zip IS 'code';
CREATE TYPE rich.loose AS (a int, b text);
CREATE TYPE rich.span AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE FUNCTION rich.year(text) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT length($1)';
CREATE DOMAIN rich.year AS int CHECK (value >= 1901 AND value <= 2155);
CREATE SEQUENCE rich.numbers AS int START 5 INCREMENT 3 MAXVALUE 9999 CACHE 2 CYCLE;
CREATE FUNCTION rich.next_number() RETURNS bigint LANGUAGE sql
    AS $$ SELECT nextval('rich.numbers') $$;
CREATE TABLE rich.customers (
    id bigint GENERATED ALWAYS AS IDENTITY (START 10 INCREMENT 2) PRIMARY KEY,
    email public.citext UNIQUE, mood rich.mood DEFAULT 'glad', moods rich.mood[], name text,
    place rich.address, code rich.code DEFAULT 'x', born rich.year,
    number bigint DEFAULT rich.next_number(),
    up text GENERATED ALWAYS AS (upper(name)) STORED,
    low text COLLATE "C" GENERATED ALWAYS AS (lower(name)) VIRTUAL,
    amount numeric(12, 2) NOT NULL DEFAULT 0, at timestamptz(3) DEFAULT now(),
    bits bit(4), label varchar(20) COLLATE "C" NOT NULL
) WITH (fillfactor = 80);
COMMENT ON TABLE rich.customers IS 'who buys';
COMMENT ON COLUMN rich.customers.email IS 'where to write';
COMMENT ON CONSTRAINT customers_pkey ON rich.customers IS 'the key';
CREATE TABLE rich.orders (id serial PRIMARY KEY, q lib.pos, note text,
    cid bigint NOT NULL REFERENCES rich.customers ON DELETE CASCADE DEFERRABLE,
    CONSTRAINT small CHECK (q < 1000), CONSTRAINT "odd Name" CHECK (note <> '') NOT VALID);
ALTER TABLE rich.orders ADD parent int REFERENCES rich.orders;
CREATE INDEX orders_q ON rich.orders ((q + 1)) INCLUDE (cid) WHERE q > 3;
CREATE UNIQUE INDEX orders_note ON rich.orders (lower(note), cid DESC NULLS LAST)
    NULLS NOT DISTINCT;
COMMENT ON INDEX rich.orders_q IS 'partial';
CREATE TABLE rich.booked (room int, during tstzrange, gap rich.span,
    CONSTRAINT no_overlap EXCLUDE USING gist (room WITH =, during WITH &&));
ALTER TABLE rich.booked REPLICA IDENTITY FULL;
CREATE TABLE rich.ev (id bigint, at date, x int DEFAULT 7, PRIMARY KEY (id, at))
    PARTITION BY RANGE (at);
CREATE TABLE rich.ev1 PARTITION OF rich.ev FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE rich.ev2 PARTITION OF rich.ev (x DEFAULT 8, CHECK (x > 0))
    FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') PARTITION BY LIST (id);
CREATE TABLE "Odd ""S"."Ev 2 'x'" PARTITION OF rich.ev2 DEFAULT;
CREATE INDEX ev_x ON rich.ev (x);
ALTER TABLE rich.ev ADD CONSTRAINT ev_fk FOREIGN KEY (x) REFERENCES rich.orders (id);
CREATE TABLE rich.base (id int PRIMARY KEY, a text);
CREATE TABLE rich.child (b text) INHERITS (rich.base);
ALTER TABLE rich.child ADD PRIMARY KEY (id);
CREATE VIEW rich.v WITH (security_barrier = true) AS SELECT id, q, note FROM rich.orders;
COMMENT ON VIEW rich.v IS 'seen'; COMMENT ON COLUMN rich.v.note IS 'noted';
CREATE VIEW rich.a_v2 AS SELECT v.q AS n FROM rich.v WHERE v.id > 0;
CREATE MATERIALIZED VIEW rich.mv AS SELECT n, count(*) AS c FROM rich.a_v2 GROUP BY n;
CREATE UNIQUE INDEX mv_n ON rich.mv (n);
COMMENT ON MATERIALIZED VIEW rich.mv IS 'kept';
CREATE FUNCTION rich.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
COMMENT ON FUNCTION rich.f() IS 'does nothing';
CREATE FUNCTION rich.g(a int, OUT b int, OUT c text) LANGUAGE sql STABLE AS 'SELECT a, a::text';
CREATE FUNCTION rich.g(a text DEFAULT 'x') RETURNS SETOF rich.orders LANGUAGE sql
    BEGIN ATOMIC SELECT * FROM rich.orders WHERE note = a; END;
CREATE PROCEDURE rich.p(INOUT x int) LANGUAGE plpgsql AS 'BEGIN x := x + 1; END';
CREATE AGGREGATE rich.total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0', PARALLEL = SAFE);
CREATE TRIGGER t1 BEFORE INSERT ON rich.orders FOR EACH ROW EXECUTE FUNCTION rich.f();
CREATE TRIGGER "T 2" AFTER UPDATE OF note ON rich.orders FOR EACH ROW
    WHEN (old.note IS DISTINCT FROM new.note) EXECUTE FUNCTION rich.f('a');
ALTER TABLE rich.orders DISABLE TRIGGER "T 2";
CREATE TRIGGER t3 AFTER INSERT ON rich.ev FOR EACH ROW EXECUTE FUNCTION rich.f();
CREATE TRIGGER t4 INSTEAD OF INSERT ON rich.v FOR EACH ROW EXECUTE FUNCTION rich.f();
CREATE TRIGGER t5 BEFORE INSERT ON rich.base FOR EACH ROW EXECUTE FUNCTION rich.f();
ALTER TABLE rich.base ENABLE ALWAYS TRIGGER t5;
COMMENT ON TRIGGER t1 ON rich.orders IS 'first';
CREATE RULE no_delete AS ON DELETE TO rich.base DO INSTEAD NOTHING;
COMMENT ON RULE no_delete ON rich.base IS 'kept for ever';
CREATE STATISTICS rich.st (dependencies) ON id, cid FROM rich.orders;
COMMENT ON STATISTICS rich.st IS 'of two';
ALTER TABLE rich.customers ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY pol ON rich.customers AS RESTRICTIVE FOR UPDATE TO PUBLIC
    USING (id > 0) WITH CHECK (name <> '');
COMMENT ON POLICY pol ON rich.customers IS 'some';
CREATE TABLE "Odd ""S"."Tab le" (id int PRIMARY KEY, "we ird" text, "Q""x" int);
COMMENT ON COLUMN "Odd ""S"."Tab le"."we ird" IS 'odd';
CREATE INDEX "I x" ON "Odd ""S"."Tab le" ("we ird" text_pattern_ops) WITH (fillfactor = 70);
CREATE UNLOGGED TABLE rich.scratch (id int PRIMARY KEY);
CREATE SEQUENCE rich.owned; ALTER SEQUENCE rich.owned OWNED BY rich.base.a;
"""
