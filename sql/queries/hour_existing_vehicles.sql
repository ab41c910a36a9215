-- The hours from $2 to before $3 with rollups of some vehicles ($1).
-- Index: the primary key (vehicle_id, hour) of vehicle_hours, a range of it per vehicle.
select
    h.vehicle_id,
    h.hour
from unnest($1::integer[]) as d (device)
cross join lateral (
    select
        s.vehicle_id,
        s.hour
    from vehicle_hours as s
    where s.vehicle_id = d.device and s.hour >= $2 and s.hour < $3
    offset 0
) as h
