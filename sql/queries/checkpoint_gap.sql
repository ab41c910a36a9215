-- Index: the primary key of wal_checkpoints. Moves a checkpoint over readings that the log no
-- longer has, and keeps their number until an operator accepts it.
update wal_checkpoints set
    position = $5,
    live_position = greatest(live_position, $5),
    meter_gap = meter_gap + $6,
    vehicle_gap = vehicle_gap + $7,
    updated_at = now()
where run_id = $1 and shard = $2 and epoch = $3 and position = $4
