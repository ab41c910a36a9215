-- Removes the sums of vehicles ($1) and hours ($2), before they are made anew.
-- Index: the primary key (vehicle_id, hour) of vehicle_hours.
delete from vehicle_hours as s
using unnest($1::integer[], $2::timestamptz[]) as d (device, hour)
where s.vehicle_id = d.device and s.hour = d.hour
