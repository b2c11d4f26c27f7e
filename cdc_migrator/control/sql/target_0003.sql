-- The fence around the target's tables. The token is what the migration's own sessions present; it
-- is read by the schema's owner alone. fenced_table remembers what was fenced: where the fence is
-- missing there, somebody took it off.
CREATE TABLE cdc_migrator.fence (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    token text NOT NULL
);

CREATE TABLE cdc_migrator.fenced_table (
    target_schema text NOT NULL,
    target_table text NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (target_schema, target_table)
);
