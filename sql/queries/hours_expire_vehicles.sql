-- Removes the rollups of some vehicles ($1) for hours that start before $2.
-- Index: the primary key (vehicle_id, hour) of vehicle_hours.
delete from vehicle_hours
where vehicle_id = any($1::integer[]) and hour < $2
