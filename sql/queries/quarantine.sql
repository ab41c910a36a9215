-- Index: the primary keys of the registries and of quarantined_readings; a batch that is tried again writes the same
-- rows. The meter or session that a vehicle named is kept as text, like the device.
insert into quarantined_readings (
    run_id, shard, position, reading_index, stream, device_id, ts, reading, sqlstate, reason, received_at
)
select
    $1, $2, u.position, u.reading_index, $3, coalesce(m.external_id, v.external_id), u.ts,
    u.reading::jsonb || jsonb_strip_nulls(
        jsonb_build_object('meterId', nm.external_id, 'sessionId', ns.external_id)
    ),
    u.sqlstate, u.reason, u.received_at
from unnest(
    $4::bigint[], $5::integer[], $6::integer[], $7::timestamptz[], $8::text[], $9::text[], $10::text[],
    $11::timestamptz[], $12::integer[], $13::integer[]
) as u (
    position, reading_index, device, ts, reading, sqlstate, reason, received_at, named_meter,
    named_session
)
left join meters as m on $3 = 'meter' and m.id = u.device
left join vehicles as v on $3 = 'vehicle' and v.id = u.device
left join meters as nm on nm.id = u.named_meter
left join session_names as ns on ns.id = u.named_session
on conflict (run_id, shard, position, reading_index) do nothing
