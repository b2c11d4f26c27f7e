-- Capture can begin anew. topic_id: which topic the stream's is; one that was made anew under the same
-- name has another. keeps: the table's rows stay on the target and are brought to the new capture's
-- snapshot; until all of them are, nobody may apply the new stream.
ALTER TABLE cdc_migrator.stream_progress ADD COLUMN topic_id text;
ALTER TABLE cdc_migrator.table_progress ADD COLUMN keeps boolean NOT NULL DEFAULT false;
