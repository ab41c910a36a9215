-- Index: the primary keys of the registry and of quarantined_readings; a batch that is tried
-- again writes the same rows.
insert into quarantined_readings (
    run_id, shard, position, reading_index, stream, device_id, ts, reading, sqlstate, reason, received_at
)
select
    $1, $2, u.position, u.reading_index, $3, coalesce(m.external_id, v.external_id), u.ts,
    u.reading::jsonb, u.sqlstate, u.reason, u.received_at
from unnest(
    $4::bigint[], $5::integer[], $6::integer[], $7::timestamptz[], $8::text[], $9::text[], $10::text[],
    $11::timestamptz[]
) as u (position, reading_index, device, ts, reading, sqlstate, reason, received_at)
left join meters as m on $3 = 'meter' and m.id = u.device
left join vehicles as v on $3 = 'vehicle' and v.id = u.device
on conflict (run_id, shard, position, reading_index) do nothing
