-- Removes the marks of vehicles ($1) and hours ($2) that this snapshot sees; one that was made since
-- stays.
-- Index: the primary key (hour, vehicle_id, id) of vehicle_hour_marks.
delete from vehicle_hour_marks as m
using unnest($1::integer[], $2::timestamptz[]) as d (device, hour)
where m.hour = d.hour and m.vehicle_id = d.device
