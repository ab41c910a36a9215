-- Removes $2 sums at most of meters, of hours that start before $1.
-- Index: meter_hours_hour (hour).
delete from meter_hours
where ctid = any(array(select s.ctid from meter_hours as s where s.hour < $1 limit $2))
