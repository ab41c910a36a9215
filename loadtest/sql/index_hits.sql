-- The share of index blocks of history that were found in memory. Reads the statistics' views alone.
SELECT coalesce(sum(idx_blks_hit) / nullif(sum(idx_blks_hit + idx_blks_read), 0), 1)::double precision
FROM pg_statio_user_tables
WHERE relname LIKE '%\_telemetry\_history%'
