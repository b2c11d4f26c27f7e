-- How far the source is being left: its own copy, for when the target is lost meanwhile. tables:
-- those that the fence stands around; target: how that server is known again.
CREATE TABLE cdc_migrator.cutover_copy (
    migration text PRIMARY KEY,
    attempt bigint NOT NULL,
    state text NOT NULL,
    marker text NOT NULL,
    tables jsonb NOT NULL,
    target jsonb NOT NULL,
    actor text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Where applications shall go, for those that ask here; kept on both sides.
CREATE TABLE IF NOT EXISTS cdc_migrator.route (
    migration text PRIMARY KEY,
    side text NOT NULL CHECK (side IN ('source', 'target')),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
