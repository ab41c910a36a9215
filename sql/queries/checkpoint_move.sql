-- Index: the primary key of wal_checkpoints. Moves nothing for a session that was superseded.
update wal_checkpoints set
    position = $5,
    live_position = $6,
    meter_readings = $7::bigint + $8::bigint + $9::bigint,
    meter_stored = $7,
    meter_duplicates = $8,
    meter_quarantined = $9,
    vehicle_readings = $10::bigint + $11::bigint + $12::bigint,
    vehicle_stored = $10,
    vehicle_duplicates = $11,
    vehicle_quarantined = $12,
    updated_at = now()
where run_id = $1 and shard = $2 and epoch = $3 and position = $4
