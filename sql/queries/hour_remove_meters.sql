-- Removes the sums of meters ($1) and hours ($2), before they are made anew.
-- Index: the primary key (meter_id, hour) of meter_hours.
delete from meter_hours as s
using unnest($1::integer[], $2::timestamptz[]) as d (device, hour)
where s.meter_id = d.device and s.hour = d.hour
