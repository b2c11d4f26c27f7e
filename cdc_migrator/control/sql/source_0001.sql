-- The control schema on the source: rows that travel through the stream, and whose it is.
-- owner is a random word that only the migration's target knows: two targets cannot share a name.
CREATE TABLE cdc_migrator.captured (
    name text PRIMARY KEY,
    generation integer NOT NULL,
    owner text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- A row inserted here reaches the applier in exact commit order.
CREATE TABLE cdc_migrator.marker (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('barrier', 'fence', 'unfence', 'start', 'stop', 'ddl', 'ping')),
    token text NOT NULL,
    details jsonb,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The side tables: where a trigger puts values that events cannot hold, on their way.
CREATE TABLE cdc_migrator.side (
    name text PRIMARY KEY,
    migration text NOT NULL,
    source_schema text NOT NULL,
    source_table text NOT NULL
);

-- One row a migration, touched by the connector's heartbeat: its commit time measures lag.
CREATE TABLE cdc_migrator.heartbeat (
    migration text PRIMARY KEY,
    beat bigint NOT NULL DEFAULT 0,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
