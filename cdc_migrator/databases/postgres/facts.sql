-- What `diagnose` asks a server: one question below each name. No row of a table is read, and
-- nothing that may quote one: no defaults, check constraints, predicates or texts of queries.

-- name: server
SELECT version(), pg_is_in_recovery() AS standby, pg_postmaster_start_time() AS started,
    now() AS at, current_database() AS database, current_user AS role,
    pg_database_size(current_database()) AS bytes

-- name: database
SELECT pg_encoding_to_char(encoding) AS encoding, datcollate, datctype, datlocprovider,
    age(datfrozenxid) AS xid_age
FROM pg_database WHERE datname = current_database()

-- name: role
SELECT rolsuper, rolreplication, rolbypassrls, rolcreaterole, rolconnlimit
FROM pg_roles WHERE rolname = current_user

-- name: extensions
SELECT extname, extversion FROM pg_extension ORDER BY 1

-- name: tables
SELECT n.nspname, c.relname, c.relkind, c.relpersistence, c.relreplident, c.relrowsecurity,
    c.relispartition, c.reltuples::float8 AS estimated_rows,
    pg_total_relation_size(c.oid) AS bytes,
    (SELECT jsonb_agg(jsonb_build_object(
            'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
            'not_null', a.attnotnull, 'generated', a.attgenerated, 'identity', a.attidentity,
            'storage', a.attstorage) ORDER BY a.attnum)
        FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'm') AND n.nspname !~ '^(pg_|information_schema$)'
ORDER BY 1, 2

-- name: indexes
SELECT n.nspname, c.relname, i.indexrelid::regclass::text AS index, i.indisunique,
    i.indisprimary, i.indisreplident, i.indisvalid, i.indkey::text AS columns,
    i.indpred IS NOT NULL AS partial, i.indexprs IS NOT NULL AS with_expressions
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^(pg_|information_schema$)'
ORDER BY 1, 2, 3

-- name: constraints
SELECT n.nspname, c.relname, k.conname, k.contype, k.convalidated, k.condeferrable
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype <> 'n' AND n.nspname !~ '^(pg_|information_schema$)'
ORDER BY 1, 2, 3

-- name: triggers
SELECT n.nspname, c.relname, t.tgname, t.tgenabled, t.tgtype, t.tgfoid::regproc::text AS function
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND n.nspname !~ '^(pg_|information_schema$)'
ORDER BY 1, 2, 3

-- name: sequences
SELECT schemaname, sequencename, data_type::text, increment_by, cache_size, cycle
FROM pg_sequences ORDER BY 1, 2

-- name: publications
SELECT p.pubname, p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate,
    p.pubviaroot,
    (SELECT jsonb_agg(t.schemaname || '.' || t.tablename ORDER BY 1)
        FROM pg_publication_tables t WHERE t.pubname = p.pubname) AS tables
FROM pg_publication p

-- name: slots
SELECT slot_name, plugin, slot_type, database, temporary, active, wal_status, safe_wal_size,
    restart_lsn::text, confirmed_flush_lsn::text, xmin::text, catalog_xmin::text,
    pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
        ELSE pg_current_wal_lsn() END, restart_lsn)::int8 AS retained_bytes
FROM pg_replication_slots

-- name: senders
SELECT application_name, state, sync_state, sent_lsn::text, flush_lsn::text, replay_lag::text
FROM pg_stat_replication

-- name: sessions
SELECT application_name, backend_type, state, wait_event_type, wait_event, count(*) AS sessions,
    max(now() - xact_start)::text AS oldest_transaction,
    max(now() - query_start)::text AS oldest_statement
FROM pg_stat_activity GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5

-- name: waiting
SELECT l.locktype, l.mode, l.relation::regclass::text AS relation, w.application_name AS waits,
    array(SELECT b.application_name FROM pg_stat_activity b
        WHERE b.pid = ANY (pg_blocking_pids(l.pid))) AS for
FROM pg_locks l JOIN pg_stat_activity w ON w.pid = l.pid WHERE NOT l.granted

-- name: prepared
SELECT count(*) AS transactions, min(prepared) AS oldest FROM pg_prepared_xacts
