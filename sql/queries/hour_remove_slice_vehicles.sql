-- Removes the rollups of vehicles ($1) for the hours from $2 to before $3: of vehicle $4 only from the hour $5 on, and of vehicle
-- $6 only before the hour $7.
-- Index: the primary key (vehicle_id, hour) of vehicle_hours, one range of it per vehicle, in order.
delete from vehicle_hours
where
    vehicle_id = any($1::integer[])
    and hour >= $2
    and hour < $3
    and (vehicle_id, hour) >= ($4::integer, $5::timestamptz)
    and (vehicle_id, hour) < ($6::integer, $7::timestamptz)
