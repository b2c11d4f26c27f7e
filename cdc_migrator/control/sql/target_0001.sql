-- The control schema on the target: what a migration knows about itself.
CREATE TABLE cdc_migrator.migration (
    name text PRIMARY KEY,
    generation integer NOT NULL DEFAULT 1,
    phase text NOT NULL,
    source_system_identifier text,
    source_timeline integer,
    consistent_point pg_lsn,
    snapshot_name text,
    -- As the source printed it. Of a slot that was made while nothing was committed xmin may lie
    -- above xmax, which the input of pg_snapshot does not take back.
    snapshot text,
    snapshot_holder_pid integer,
    placeholder text NOT NULL,
    -- The target's schema is made by other tools: it is compared, never made.
    existing_schema boolean NOT NULL DEFAULT false,
    last_error jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now()
);

-- One row a stream; moves in the transaction that writes the rows. Batches may commit without moving
-- next_offset: while a transaction is held back others are applied ahead of it. So each apply
-- transaction has a number of its own, and what was applied ahead is listed by its commit positions
-- until commit_position has passed them.
CREATE TABLE cdc_migrator.stream_progress (
    stream text PRIMARY KEY,
    topic text NOT NULL,
    partition integer NOT NULL DEFAULT 0,
    generation integer NOT NULL,
    next_offset bigint NOT NULL DEFAULT 0,
    commit_position bigint NOT NULL DEFAULT 0,
    source_committed_at timestamptz,
    applied_at timestamptz,
    transactions_applied bigint NOT NULL DEFAULT 0,
    transactions_redelivered bigint NOT NULL DEFAULT 0,
    transactions_suspect bigint NOT NULL DEFAULT 0,
    applies bigint NOT NULL DEFAULT 0,
    applied_ahead bigint[] NOT NULL DEFAULT '{}',
    epoch bigint NOT NULL DEFAULT 0,
    owner text,
    owner_backend integer,
    owner_backend_start timestamptz
);

-- Kept apart from stream_progress, so that saying "I am alive" never waits for an apply transaction.
CREATE TABLE cdc_migrator.stream_owner_seen (
    stream text PRIMARY KEY REFERENCES cdc_migrator.stream_progress ON DELETE CASCADE,
    epoch bigint NOT NULL,
    seen_at timestamptz NOT NULL,
    sample jsonb
);

-- One row a table: the load's state, and what the stream has applied to it. source_filenode is
-- the table's file when its snapshot was taken: a TRUNCATE or a rewrite since then empties
-- that snapshot. attempt counts how often the load began anew. joining is set while the table is
-- taken into a stream that runs: before it is published for certain, then until it can be applied.
CREATE TABLE cdc_migrator.table_progress (
    source_schema text NOT NULL,
    source_table text NOT NULL,
    target_schema text NOT NULL,
    target_table text NOT NULL,
    load_state text NOT NULL DEFAULT 'waiting'
        CHECK (load_state IN ('waiting', 'loading', 'loaded')),
    estimated_rows bigint NOT NULL DEFAULT 0,
    estimated_bytes bigint NOT NULL DEFAULT 0,
    rows_loaded bigint NOT NULL DEFAULT 0,
    bytes_loaded bigint NOT NULL DEFAULT 0,
    load_started_at timestamptz,
    load_ended_at timestamptz,
    source_filenode bigint,
    attempt integer NOT NULL DEFAULT 0,
    joining text CHECK (joining IN ('publishing', 'loading')),
    reread_snapshot text,
    reread_until pg_lsn,
    inserts bigint NOT NULL DEFAULT 0,
    updates bigint NOT NULL DEFAULT 0,
    deletes bigint NOT NULL DEFAULT 0,
    truncates bigint NOT NULL DEFAULT 0,
    truncates_ignored bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (source_schema, source_table)
);

-- A range of heap blocks [first_block, end_block) of one table; end_block NULL is the open end.
-- weight is its share of the table's bytes, for telling the time left.
CREATE TABLE cdc_migrator.backfill_chunk (
    source_schema text NOT NULL,
    source_table text NOT NULL,
    chunk integer NOT NULL,
    first_block bigint NOT NULL,
    end_block bigint,
    weight bigint NOT NULL,
    attempt integer NOT NULL,
    done boolean NOT NULL DEFAULT false,
    rows bigint,
    bytes bigint,
    done_at timestamptz,
    PRIMARY KEY (source_schema, source_table, chunk),
    FOREIGN KEY (source_schema, source_table)
        REFERENCES cdc_migrator.table_progress ON DELETE CASCADE
);

-- What was decided and done, in order; each row carries the hash of the one before it.
CREATE TABLE cdc_migrator.journal (
    id bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    details jsonb NOT NULL,
    previous_hash text NOT NULL,
    hash text NOT NULL
);

-- What a command asks of the running service, and its answer. The asker is known by its session:
-- what was given to it is taken back when that is gone.
CREATE TABLE cdc_migrator.request (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    details jsonb NOT NULL,
    state text NOT NULL DEFAULT 'asked'
        CHECK (state IN ('asked', 'taken', 'answered', 'failed', 'released')),
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    asked_by text NOT NULL,
    asker_backend integer NOT NULL,
    asker_backend_start timestamptz NOT NULL,
    answer jsonb,
    answered_at timestamptz
);
