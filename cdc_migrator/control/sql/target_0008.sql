-- Keys whose records are kept back because the target did not accept one of them; what follows for
-- such a key follows it here. chain: keys that became one another are tried, or given up, together.
-- key: as the stream has it; texts: its columns as comparisons have them, null where the target
-- cannot read them. state parked: its records are in dead_letter and can be applied. skipped: they
-- were given up; left_out counts the records that came since, which are not kept.
CREATE TABLE cdc_migrator.parked_key (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source_schema text NOT NULL,
    source_table text NOT NULL,
    key bytea NOT NULL,
    hash text NOT NULL GENERATED ALWAYS AS (encode(sha256(key), 'hex')) STORED,
    texts text[],
    chain bigint NOT NULL,
    state text NOT NULL DEFAULT 'parked' CHECK (state IN ('parked', 'skipped')),
    left_out bigint NOT NULL DEFAULT 0,
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    tries integer NOT NULL DEFAULT 0,
    tried_at timestamptz,
    error text,
    reason text,
    changed_by text,
    changed_at timestamptz
);
CREATE UNIQUE INDEX parked_key_key ON cdc_migrator.parked_key (source_schema, source_table, hash);
CREATE INDEX parked_key_chain ON cdc_migrator.parked_key (chain);

-- The records themselves, ids in the order of the stream. record_*: where the record says that it
-- comes from, which is a side table for some. Key and images are the event's own bytes, so they
-- hold values of rows. code, sqlstate, constraint_name, fault: why it was kept back; names only.
CREATE TABLE cdc_migrator.dead_letter (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    parked_key bigint NOT NULL REFERENCES cdc_migrator.parked_key,
    record_schema text NOT NULL,
    record_table text NOT NULL,
    op text NOT NULL CHECK (op IN ('c', 'u', 'd')),
    record_key bytea NOT NULL,
    before_image bytea,
    after_image bytea,
    moves_on boolean NOT NULL,
    moved_here boolean NOT NULL,
    lsn bigint NOT NULL,
    xid bigint NOT NULL,
    commit_position bigint NOT NULL,
    place integer NOT NULL,
    first_offset bigint NOT NULL,
    next_offset bigint NOT NULL,
    source_committed_at timestamptz,
    code text NOT NULL,
    sqlstate text,
    constraint_name text,
    fault text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX dead_letter_key ON cdc_migrator.dead_letter (parked_key, id);
