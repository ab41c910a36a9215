-- Index: the primary key of wal_checkpoints. Raises the epoch, so that an older session of this shard can move nothing
-- any more; a missing row means the run's start. A session that has changed its role may not see its own start. It then
-- records none, so no other session can mistake it for a lost one.
insert into wal_checkpoints as c (
    run_id, shard, position, live_position, epoch, backend_pid, backend_start
)
select $1, $2, $3, $3, 1, pg_backend_pid(), coalesce(a.backend_start, '-infinity')
from pg_stat_activity as a
where a.pid = pg_backend_pid()
on conflict (run_id, shard) do update set
    epoch = c.epoch + 1,
    backend_pid = excluded.backend_pid,
    backend_start = excluded.backend_start,
    updated_at = now()
returning
    position, live_position, epoch,
    meter_stored, meter_duplicates, meter_quarantined,
    vehicle_stored, vehicle_duplicates, vehicle_quarantined,
    meter_gap, vehicle_gap
