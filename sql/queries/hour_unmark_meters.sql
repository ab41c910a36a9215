-- Removes the dirty marks of meters ($1) at one hour ($2) that this snapshot sees and that come from passes before $3.
-- Later marks stay. One hour: joined with a list of both, the whole table may be read.
-- Index: the primary key (hour, meter_id, id) of meter_hour_marks.
delete from meter_hour_marks
where hour = $2 and meter_id = any($1::integer[]) and pass < $3
