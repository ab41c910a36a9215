-- The newest reading of one vehicle.
-- Served by the unique index on vehicles.external_id and the primary key of vehicle_live_status.
select
    v.external_id,
    s.received_at,
    s.ts,
    s.kwh_delivered_dc,
    s.kwh_register,
    s.soc,
    s.battery_temp
from vehicles as v
inner join vehicle_live_status as s on v.id = s.vehicle_id
where v.external_id = $1
