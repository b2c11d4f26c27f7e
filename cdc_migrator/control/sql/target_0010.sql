-- There is a row where the target's role may not hold off foreign keys and triggers: they are not
-- there while the stream is applied, and are made in the transaction that opens the target.
CREATE TABLE cdc_migrator.deferral (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);
