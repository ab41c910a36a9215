-- The hours from $2 to before $3 with rollups of some meters ($1).
-- Index: the primary key (meter_id, hour) of meter_hours, a range of it per meter.
select
    h.meter_id,
    h.hour
from unnest($1::integer[]) as d (device)
cross join lateral (
    select
        s.meter_id,
        s.hour
    from meter_hours as s
    where s.meter_id = d.device and s.hour >= $2 and s.hour < $3
    offset 0
) as h
