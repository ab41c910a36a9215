-- Index: the primary key of quarantined_readings, from the last reading of the chunk before.
select
    run_id, shard, position, reading_index, device_id, ts, received_at,
    coalesce(reading ->> 'kwhConsumedAc', reading ->> 'kwhDeliveredDc')::float8,
    reading ->> 'energyKind' = 'register',
    (reading ->> 'voltage')::float8,
    (reading ->> 'soc')::float8,
    (reading ->> 'batteryTemp')::float8,
    reading ->> 'meterId',
    reading ->> 'sessionId'
from quarantined_readings
where
    (run_id, shard, position, reading_index) > ($1, $2, $3, $4)
    and stream = $5
    and ($6::text is null or device_id = $6)
order by run_id, shard, position, reading_index
limit $7
