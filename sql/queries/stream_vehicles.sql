-- The newest readings of some vehicles, and the short ids by which they were requested.
-- Served by the primary keys of vehicle_live_status and vehicles.
select
    v.external_id,
    s.received_at,
    s.ts,
    s.kwh_delivered_dc,
    s.kwh_register,
    s.soc,
    s.battery_temp,
    s.vehicle_id
from vehicle_live_status as s
inner join vehicles as v on s.vehicle_id = v.id
where s.vehicle_id = any($1)
