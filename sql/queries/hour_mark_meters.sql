-- Marks hours that may be rolled up as dirty: meters ($1) and hours ($2).
insert into meter_hour_marks (meter_id, hour)
select
    m.device,
    m.hour
from unnest($1::integer[], $2::timestamptz[]) as m (device, hour)
