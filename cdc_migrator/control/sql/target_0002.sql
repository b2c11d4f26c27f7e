-- Comparing both sides: the runs, what they have proven and when, what differs, what was repaired.
CREATE TABLE cdc_migrator.reconcile_run (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mode text NOT NULL CHECK (mode IN ('full', 'sample')),
    tables jsonb NOT NULL,
    state text NOT NULL DEFAULT 'running'
        CHECK (state IN ('running', 'stopped', 'equal', 'differs')),
    actor text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz
);

-- A part of one table that is read and proven at once: rows whose value of ordered_by (null: of
-- a hash) lies in [low, high), cut at bounds. proven_at and sees tell at which alignment point.
CREATE TABLE cdc_migrator.reconcile_chunk (
    run bigint NOT NULL REFERENCES cdc_migrator.reconcile_run ON DELETE CASCADE,
    source_schema text NOT NULL,
    source_table text NOT NULL,
    chunk integer NOT NULL,
    ordered_by text,
    low text,
    high text,
    bounds jsonb NOT NULL,
    weight bigint NOT NULL,
    done boolean NOT NULL DEFAULT false,
    rows bigint,
    differences integer,
    more boolean,
    proven_at timestamptz,
    sees text,
    PRIMARY KEY (run, source_schema, source_table, chunk)
);

-- One row of one table that differs, or did. key holds the text of each key column; of a keyless
-- table the digest of the row.
CREATE TABLE cdc_migrator.difference (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source_schema text NOT NULL,
    source_table text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('missing_in_target', 'extra_in_target', 'different')),
    key jsonb NOT NULL,
    columns text[] NOT NULL,
    source_count bigint NOT NULL,
    target_count bigint NOT NULL,
    first_run bigint NOT NULL,
    run bigint NOT NULL,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'repaired', 'accepted', 'gone')),
    reason text,
    changed_by text,
    changed_at timestamptz
);
-- A key is open or accepted once at a time; it may be longer than an index entry may.
CREATE UNIQUE INDEX difference_standing ON cdc_migrator.difference
    (source_schema, source_table, md5(key::text)) WHERE state IN ('open', 'accepted');

-- What was written to the target to mend it: of each key the digests of its rows before and after,
-- never values, and how many rows there were.
CREATE TABLE cdc_migrator.repair (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run bigint,
    source_schema text NOT NULL,
    source_table text NOT NULL,
    key jsonb NOT NULL,
    action text NOT NULL CHECK (action IN ('inserted', 'replaced', 'deleted', 'none')),
    before text[] NOT NULL,
    rows_before bigint NOT NULL,
    after text[] NOT NULL,
    rows_after bigint NOT NULL,
    who text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
