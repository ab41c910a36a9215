-- Marks hours that may be rolled up as dirty: vehicles ($1) and hours ($2).
insert into vehicle_hour_marks (vehicle_id, hour)
select
    m.device,
    m.hour
from unnest($1::integer[], $2::timestamptz[]) as m (device, hour)
