-- The chunks of a table that keep what was proven of them from one comparison to the next: their
-- bounds in the order of ordered_by (null: of a hash). place is the SQL of the number of a row's
-- chunk, over the target's key columns; null where the whole table is one chunk. It is kept and not
-- made anew, so that who marks and who proves cannot mean different chunks. signature: of which
-- columns, and how they are hashed. marked: whoever applies marks what it changes.
CREATE TABLE cdc_migrator.reconcile_map (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source_schema text NOT NULL,
    source_table text NOT NULL,
    ordered_by text,
    bounds jsonb NOT NULL,
    chunks integer NOT NULL,
    place text,
    signature text NOT NULL,
    marked boolean NOT NULL DEFAULT false,
    UNIQUE (source_schema, source_table)
);

-- The last proof of a chunk: at which alignment point, by which run, and what came of it.
CREATE TABLE cdc_migrator.reconcile_proof (
    map bigint NOT NULL REFERENCES cdc_migrator.reconcile_map ON DELETE CASCADE,
    chunk integer NOT NULL,
    run bigint NOT NULL,
    proven_at timestamptz NOT NULL,
    sees text NOT NULL,
    rows bigint NOT NULL,
    equal boolean NOT NULL,
    PRIMARY KEY (map, chunk)
);

-- A chunk that was written to, in the transaction that wrote. A proof removes those marks that its
-- own snapshot of the target shows; one that is not shown is of a later change. No foreign key: who
-- applies must not fail because a map is gone.
CREATE TABLE cdc_migrator.reconcile_mark (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    map bigint NOT NULL,
    chunk integer NOT NULL
);
CREATE INDEX reconcile_mark_chunk ON cdc_migrator.reconcile_mark (map, chunk);

ALTER TABLE cdc_migrator.reconcile_run
    DROP CONSTRAINT reconcile_run_mode_check,
    ADD CONSTRAINT reconcile_run_mode_check
        CHECK (mode IN ('full', 'sample', 'incremental', 'continuous'));

-- map: whose chunks these are (null: nobody's); first_chunk: the number in it of the part's first
-- one, null where the whole table is one. picked: of the part's chunks only these are read; an empty
-- list is a table that stands on what was proven of it before.
ALTER TABLE cdc_migrator.reconcile_chunk
    ADD COLUMN map bigint,
    ADD COLUMN first_chunk integer,
    ADD COLUMN picked integer[];
