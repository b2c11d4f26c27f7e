-- Rules that were checked, and what came of each. rules: digest of the rules in force; whole: all of
-- them were looked at, so that the result counts for the verdict on leaving the source; aligned: both
-- sides were read at one commit point, at the latest at `at`. No value of a row is kept.
CREATE TABLE cdc_migrator.validation_run (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rules text NOT NULL,
    whole boolean NOT NULL,
    aligned boolean NOT NULL,
    passed boolean NOT NULL,
    at timestamptz,
    seconds float8 NOT NULL,
    actor text NOT NULL,
    ended_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE cdc_migrator.validation_result (
    run bigint NOT NULL REFERENCES cdc_migrator.validation_run ON DELETE CASCADE,
    place integer NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    table_name text,
    severity text NOT NULL CHECK (severity IN ('blocker', 'warning', 'info')),
    status text NOT NULL CHECK (status IN ('passed', 'failed', 'error', 'skipped')),
    reason text NOT NULL,
    seconds float8 NOT NULL,
    PRIMARY KEY (run, place)
);
