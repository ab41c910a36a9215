-- Removes the rollups of some meters ($1) for hours that start before $2.
-- Index: the primary key (meter_id, hour) of meter_hours.
delete from meter_hours
where meter_id = any($1::integer[]) and hour < $2
