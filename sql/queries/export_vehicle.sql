-- The next readings of one vehicle in ($2, $3], in the order of time, with the places they name.
-- Index: the primary key (vehicle_id, ts) of the partitions between $2 and $3, the primary keys
-- of meters and session_names.
select
    h.ts,
    h.kwh_delivered_dc,
    h.kwh_register,
    h.soc,
    h.battery_temp,
    m.external_id as meter_name,
    s.external_id as session_name
from (
    select
        r.ts,
        r.kwh_delivered_dc,
        r.kwh_register,
        r.soc,
        r.battery_temp,
        r.named_meter_id,
        r.named_session_id
    from vehicle_telemetry_history as r
    where r.vehicle_id = $1 and r.ts > $2 and r.ts <= $3
    order by r.ts
    limit $4
) as h
left join meters as m on h.named_meter_id = m.id
left join session_names as s on h.named_session_id = s.id
order by h.ts
