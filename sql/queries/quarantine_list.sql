-- Reads the whole quarantine, newest first. Only operators request it, and rarely. Column 6 is the total number.
select
    jsonb_build_object(
        'stream', stream, 'deviceId', device_id, 'timestamp', ts, 'sqlstate', sqlstate,
        'reason', reason, 'reading', reading, 'receivedAt', received_at,
        'quarantinedAt', quarantined_at
    )::text,
    stream, device_id, ts, sqlstate, reason, count(*) over (), reading::text
from quarantined_readings
where
    ($1::text is null or stream = $1)
    and ($2::text is null or device_id = $2)
order by quarantined_at desc, run_id, shard, position, reading_index
limit $3
