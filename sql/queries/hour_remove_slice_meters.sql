-- Removes the rollups of meters ($1) for the hours from $2 to before $3: of meter $4 only from the hour $5 on, and of meter
-- $6 only before the hour $7.
-- Index: the primary key (meter_id, hour) of meter_hours, one range of it per meter, in order.
delete from meter_hours
where
    meter_id = any($1::integer[])
    and hour >= $2
    and hour < $3
    and (meter_id, hour) >= ($4::integer, $5::timestamptz)
    and (meter_id, hour) < ($6::integer, $7::timestamptz)
