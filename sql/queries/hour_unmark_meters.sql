-- Removes the marks of meters ($1) and hours ($2) that this snapshot sees; one that was made since
-- stays.
-- Index: the primary key (hour, meter_id, id) of meter_hour_marks.
delete from meter_hour_marks as m
using unnest($1::integer[], $2::timestamptz[]) as d (device, hour)
where m.hour = d.hour and m.meter_id = d.device
