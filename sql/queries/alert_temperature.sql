-- Vehicles whose newest reading, at most an hour old at $2, shows a battery hotter than $1.
-- Reads vehicle_live_status whole: one row per vehicle.
select
    s.vehicle_id,
    s.battery_temp,
    s.ts
from vehicle_live_status as s
where s.battery_temp > $1 and s.ts > $2::timestamptz - interval '1 hour'
order by s.battery_temp desc, s.vehicle_id
limit 1000
