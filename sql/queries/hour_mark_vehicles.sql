-- Says that readings have come into hours that may be summed up: vehicles ($1) and hours ($2).
insert into vehicle_hour_marks (vehicle_id, hour)
select
    m.device,
    m.hour
from unnest($1::integer[], $2::timestamptz[]) as m (device, hour)
