-- Removes the rollups of meters ($1) for one hour ($2), before they are computed again.
-- One hour: joined with a list of both, the whole table may be read.
-- Index: the primary key (meter_id, hour) of meter_hours.
delete from meter_hours
where meter_id = any($1::integer[]) and hour = $2
