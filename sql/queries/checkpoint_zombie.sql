-- Index: the primary key of wal_checkpoints. Ends the recorded session of a shard, if it is still
-- the one that was recorded.
select pg_terminate_backend(a.pid)
from wal_checkpoints as c
inner join pg_stat_activity as a on a.pid = c.backend_pid and a.backend_start = c.backend_start
where c.run_id = $1 and c.shard = $2 and a.pid <> pg_backend_pid()
