-- Removes $2 sums at most of vehicles, of hours that start before $1.
-- Index: vehicle_hours_hour (hour).
delete from vehicle_hours
where ctid = any(array(select s.ctid from vehicle_hours as s where s.hour < $1 limit $2))
