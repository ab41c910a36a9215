-- Vehicles with an open alert whose newest battery temperature is at most $1.
-- Index: alerts_open, the primary key of vehicle_live_status.
select a.device_id
from alerts as a
inner join vehicle_live_status as s on a.device_id = s.vehicle_id
where a.kind = 'battery_temperature' and a.closed_at is null and s.battery_temp <= $1
