-- Reads the whole quarantine, newest first: for an operator's eyes, and rare. Each reading comes with
-- the stored one of the same device and time, if there is one. Column 6 says how many there are in
-- all.
-- Indexes: the registries' unique external_id, the primary keys of history (one probe a row shown).
with
shown as (
    select
        run_id, shard, position, reading_index, stream, device_id, ts, reading, sqlstate, reason,
        received_at, quarantined_at, count(*) over () as in_all
    from quarantined_readings
    where
        ($1::text is null or stream = $1)
        and ($2::text is null or device_id = $2)
    order by quarantined_at desc, run_id, shard, position, reading_index
    limit $3
),
compared as (
    select
        s.*,
        case s.stream
            when 'meter' then (
                select jsonb_strip_nulls(jsonb_build_object(
                    'kwhConsumedAc', coalesce(h.kwh_register, h.kwh_consumed_ac),
                    'energyKind', case when h.kwh_register is null then 'interval' else 'register' end,
                    'voltage', h.voltage
                ))
                from meters as m
                inner join meter_telemetry_history as h on h.meter_id = m.id
                where m.external_id = s.device_id and h.ts = s.ts
            )
            else (
                select jsonb_strip_nulls(jsonb_build_object(
                    'kwhDeliveredDc', coalesce(h.kwh_register, h.kwh_delivered_dc),
                    'energyKind', case when h.kwh_register is null then 'interval' else 'register' end,
                    'soc', h.soc,
                    'batteryTemp', h.battery_temp,
                    'meterId', (select p.external_id from meters as p where p.id = h.named_meter_id),
                    'sessionId', (select n.external_id from session_names as n where n.id = h.named_session_id)
                ))
                from vehicles as v
                inner join vehicle_telemetry_history as h on h.vehicle_id = v.id
                where v.external_id = s.device_id and h.ts = s.ts
            )
        end as stored
    from shown as s
)
select
    jsonb_build_object(
        'stream', stream, 'deviceId', device_id, 'timestamp', ts, 'sqlstate', sqlstate,
        'reason', reason, 'reading', reading, 'stored', stored, 'receivedAt', received_at,
        'quarantinedAt', quarantined_at
    )::text,
    stream, device_id, ts, sqlstate, reason, in_all, reading::text, stored::text
from compared
order by quarantined_at desc, run_id, shard, position, reading_index
