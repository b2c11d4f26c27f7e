-- How a table's rows become rows of another shape (model/mapping); null: they go to the table of the
-- same name, column by column. A table that is split has a row for each of its routes.
ALTER TABLE cdc_migrator.table_progress ADD COLUMN route jsonb;

-- What migration.yaml said of tables' new shapes when their routes were worked out of it.
ALTER TABLE cdc_migrator.migration ADD COLUMN mapping jsonb;
