-- The stored reading of a vehicle at one time, as it was sent.
-- Indexes: the unique external_id of vehicles, the primary key of the one partition that holds $2, the
-- primary keys of meters and session_names.
select
    jsonb_strip_nulls(jsonb_build_object(
        'kwhDeliveredDc', coalesce(h.kwh_register, h.kwh_delivered_dc),
        'energyKind', case when h.kwh_register is null then 'interval' else 'register' end,
        'soc', h.soc,
        'batteryTemp', h.battery_temp,
        'meterId', p.external_id,
        'sessionId', n.external_id
    ))::text
from vehicles as v
inner join vehicle_telemetry_history as h on v.id = h.vehicle_id
left join meters as p on h.named_meter_id = p.id
left join session_names as n on h.named_session_id = n.id
where v.external_id = $1 and h.ts = $2
