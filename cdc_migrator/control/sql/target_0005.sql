-- Tables that are written anew from the source while the stream runs, range by range of their key.
-- Keys are arrays of texts; null is the open end.
CREATE TABLE cdc_migrator.rebuild (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source_schema text NOT NULL,
    source_table text NOT NULL,
    low jsonb,
    high jsonb,
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'given up')),
    actor text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz
);
CREATE UNIQUE INDEX rebuild_running ON cdc_migrator.rebuild (source_schema, source_table)
    WHERE state = 'running';

-- Written in the transaction that writes the range; proven_at: seen equal on both sides since.
CREATE TABLE cdc_migrator.rebuild_range (
    rebuild bigint NOT NULL REFERENCES cdc_migrator.rebuild ON DELETE CASCADE,
    number integer NOT NULL,
    low jsonb,
    high jsonb,
    rows_before bigint NOT NULL,
    rows_after bigint NOT NULL,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    proven_at timestamptz,
    PRIMARY KEY (rebuild, number)
);

ALTER TABLE cdc_migrator.repair DROP CONSTRAINT repair_action_check,
    ADD CONSTRAINT repair_action_check
    CHECK (action IN ('inserted', 'replaced', 'deleted', 'none', 'rebuilt'));
