-- What each table of the stream is at the stream's position, as the source described it there. Events
-- are read by it: the source's catalog may be further on.
CREATE TABLE cdc_migrator.table_shape (
    source_schema text NOT NULL,
    source_table text NOT NULL,
    source_oid bigint NOT NULL,
    described jsonb NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (source_schema, source_table),
    FOREIGN KEY (source_schema, source_table)
        REFERENCES cdc_migrator.table_progress ON UPDATE CASCADE ON DELETE CASCADE
);

-- Changes of the schema that the stream has come to. token: that of the marker that told of it; null:
-- it was found by looking. settled: the stream goes on behind it.
CREATE TABLE cdc_migrator.schema_change (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    token text UNIQUE,
    source_schema text NOT NULL,
    source_table text NOT NULL,
    position text NOT NULL,
    commit_position bigint NOT NULL,
    changes jsonb NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    settled_at timestamptz
);
CREATE INDEX schema_change_open ON cdc_migrator.schema_change (id) WHERE settled_at IS NULL;

-- A table that is renamed takes its chunks along.
ALTER TABLE cdc_migrator.backfill_chunk
    DROP CONSTRAINT backfill_chunk_source_schema_source_table_fkey,
    ADD CONSTRAINT backfill_chunk_source_schema_source_table_fkey
        FOREIGN KEY (source_schema, source_table)
        REFERENCES cdc_migrator.table_progress ON UPDATE CASCADE ON DELETE CASCADE;
