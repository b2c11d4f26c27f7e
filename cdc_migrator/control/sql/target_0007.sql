-- What both sides' rows of a chunk came to when it was proven: the exclusive or of the rows' hashes,
-- and the sum of a second hash. They add up over chunks in any order, so a table has one, too. Of a
-- chunk that differed they are the source's; null of what an earlier release has proven.
ALTER TABLE cdc_migrator.reconcile_proof
    ADD COLUMN hashes_either bigint,
    ADD COLUMN hashes_total numeric;

-- What a side does in ordinary times. kind: what its latency is of; numbers: as `monitor.baseline`
-- makes them.
CREATE TABLE cdc_migrator.baseline (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    side text NOT NULL CHECK (side IN ('source', 'target')),
    kind text NOT NULL CHECK (kind IN ('statements', 'transactions')),
    numbers jsonb NOT NULL,
    window_seconds double precision NOT NULL,
    actor text NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- A rule that has fired while the target was open, by the attempt that opened it. acted_at: its
-- action is done; error: why it was not, the last time. cleared_at: it was fine again for as long.
CREATE TABLE cdc_migrator.watch_firing (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    attempt bigint NOT NULL,
    rule text NOT NULL,
    number double precision NOT NULL,
    threshold double precision NOT NULL,
    below boolean NOT NULL,
    for_seconds double precision NOT NULL,
    action text NOT NULL CHECK (action IN ('alert', 'rollback')),
    evidence jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    acted_at timestamptz,
    error jsonb,
    cleared_at timestamptz
);
CREATE UNIQUE INDEX watch_firing_open ON cdc_migrator.watch_firing (attempt, rule)
    WHERE cleared_at IS NULL;
