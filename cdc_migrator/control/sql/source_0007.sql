-- A database may be both sides' at once, where there is a way back. So the source's tables have names
-- that the target's have not; what an earlier release made is renamed.
DO $$
BEGIN
    IF to_regclass('cdc_migrator.captured') IS NULL THEN
        ALTER TABLE cdc_migrator.migration RENAME TO captured;
    END IF;
    IF to_regclass('cdc_migrator.cutover_copy') IS NULL THEN
        ALTER TABLE cdc_migrator.cutover RENAME TO cutover_copy;
    END IF;
END
$$;
