-- Removes the rollups of vehicles ($1) for one hour ($2), before they are computed again.
-- One hour: joined with a list of both, the whole table may be read.
-- Index: the primary key (vehicle_id, hour) of vehicle_hours.
delete from vehicle_hours
where vehicle_id = any($1::integer[]) and hour = $2
