-- Marks hours that may be rolled up as dirty: vehicles ($1), hours ($2), the earliest reading of each ($3), in a
-- pass ($4).
insert into vehicle_hour_marks (vehicle_id, hour, earliest, pass)
select
    m.device,
    m.hour,
    m.earliest,
    $4
from unnest($1::integer[], $2::timestamptz[], $3::timestamptz[]) as m (device, hour, earliest)
