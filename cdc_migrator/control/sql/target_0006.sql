-- Leaving the source. A stream that is not active moves on and writes nothing, but counts what it
-- passes over; its leg counts the ways between the two sides.
ALTER TABLE cdc_migrator.stream_progress
    ADD COLUMN active boolean NOT NULL DEFAULT true,
    ADD COLUMN leg integer NOT NULL DEFAULT 1,
    ADD COLUMN changes_ignored bigint NOT NULL DEFAULT 0;

-- The markers that say where one side was left: written in the transaction that applied up to them.
CREATE TABLE cdc_migrator.marker_applied (
    token text PRIMARY KEY,
    stream text NOT NULL,
    kind text NOT NULL,
    commit_position bigint NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One row an attempt: its state, written before what it stands for is begun. details: seconds of
-- each step, and what it found.
CREATE TABLE cdc_migrator.cutover (
    attempt bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    leg integer NOT NULL,
    rehearsal boolean NOT NULL,
    state text NOT NULL,
    marker text NOT NULL UNIQUE,
    options jsonb NOT NULL DEFAULT '{}',
    details jsonb NOT NULL DEFAULT '{}',
    error jsonb,
    actor text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    fenced_at timestamptz,
    opened_at timestamptz,
    ended_at timestamptz
);
CREATE UNIQUE INDEX cutover_open ON cdc_migrator.cutover ((true)) WHERE ended_at IS NULL;

-- Copies of the source that exist elsewhere: directories of pg_dump, or what the user says.
CREATE TABLE cdc_migrator.backup (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('dump', 'reference')),
    place text NOT NULL,
    taken_at timestamptz NOT NULL,
    bytes bigint,
    details jsonb NOT NULL DEFAULT '{}',
    verified_at timestamptz,
    actor text NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What takes too long to be looked at with every sample, as it was found last.
CREATE TABLE cdc_migrator.inspection (
    part text PRIMARY KEY,
    found jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Where applications shall go, for those that ask here; kept on both sides.
CREATE TABLE IF NOT EXISTS cdc_migrator.route (
    migration text PRIMARY KEY,
    side text NOT NULL CHECK (side IN ('source', 'target')),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
