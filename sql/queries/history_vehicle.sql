-- A page of a vehicle's readings in ($2, $3], oldest first, with the places that they name.
-- Index: the primary key (vehicle_id, ts) of the partitions between $2 and $3, one after the other
-- until the page is full; the primary keys of meters and session_names.
select
    h.ts,
    h.kwh_delivered_dc,
    h.kwh_register,
    h.soc,
    h.battery_temp,
    m.external_id as meter_id,
    s.external_id as session_id
from (
    select *
    from vehicle_telemetry_history
    where vehicle_id = $1 and ts > $2 and ts <= $3
    order by ts
    limit $4
) as h
left join meters as m on h.named_meter_id = m.id
left join session_names as s on h.named_session_id = s.id
order by h.ts
